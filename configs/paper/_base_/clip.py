"""What the paper's CLIP recipes share: CC3M with 8 captions an image, AdamW, cosine, two lengths of
warm-up.
"""

paradigm = dict(
    type="clip",
    data=dict(
        type="csv",
        train="data/cc3m_train.csv",
        imagenet="data/imagenet_val.csv",
        caption_key=[f"caption_{i}" for i in range(8)],
        label_key="label",
        num_samples=2_905_954,
    ),
    templates=("a photo of a {}.",),
)
grower = dict(type="leading_block")
transfer = dict(type="feature_mse", weight=0.98)


def schedule(warm_up):
    return [
        dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up),
        dict(type="CosineAnnealingLR", eta_min=0.0, begin=warm_up, end=1.0),
    ]


_first_schedule = schedule(8000)
param_scheduler = schedule(1000)

precision = "bf16"
train_dataloader = dict(batch_size=128, num_workers=8)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98)))
