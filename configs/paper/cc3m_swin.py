"""The paper's CLIP chain on CC3M with Swin towers: Swin-T, Swin-S, Swin-B, Swin-L.

Run:      mim train compt configs/paper/cc3m_swin.py --launcher pytorch --gpus 8
Needs:    as cc3m_vit.py: 8 GPUs for the global batch of 1024, and the same two tables
Plan:     compt plan configs/paper/cc3m_swin.py needs neither data nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, and its scripts: Swin-T 128 epochs, Swin-B 16, Swin-L 10
Ours:     24 epochs for Swin-S, as for ViT-S: the script of that hop names the models of another one
Differs:  as cc3m_vit.py; blocks deepen in place, where the paper's code leaves the 12 new blocks of Swin-S random
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


def clip(size, text_width):
    return dict(
        embed_dim=512,
        vision_cfg=dict(
            timm_model_name=f"swin_{size}_patch4_window7_224",
            timm_model_pretrained=False,
            timm_pool="",
            timm_proj="linear",
            image_size=224,
        ),
        text_cfg=dict(context_length=77, width=text_width, layers=12, heads=text_width // 64),
    )


def schedule(warm_up):
    return [
        dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up),
        dict(type="CosineAnnealingLR", eta_min=0.0, begin=warm_up, end=1.0),
    ]


chain = [
    dict(name="swin-t", model=clip("tiny", 384), epochs=128, param_scheduler=schedule(8000)),
    dict(name="swin-s", model=clip("small", 512), epochs=24),
    dict(name="swin-b", model=clip("base", 512), epochs=16),
    dict(name="swin-l", model=clip("large", 768), epochs=10),
]
param_scheduler = schedule(1000)
grower = dict(type="leading_block")
transfer = dict(type="feature_mse", weight=0.98)

precision = "bf16"
train_dataloader = dict(batch_size=128, num_workers=8)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98)))
