"""CLIP on icons, many epochs over little data.

See benchmarks/README.md for the keys.
"""

_base_ = ["_base_/schedule.py"]
paradigm = dict(type="clip", data=dict(type="icons"))


def clip(width, vision_layers, text_layers):
    return dict(
        embed_dim=128,
        vision_cfg=dict(
            image_size=32, patch_size=8, width=width, layers=vision_layers, head_width=32
        ),
        text_cfg=dict(context_length=12, width=width, layers=text_layers, heads=width // 32),
    )


_seven = [
    dict(name="clip-64x2", model=clip(64, 2, 1), lr=2e-3),
    dict(name="clip-64x3", model=clip(64, 3, 2), lr=2e-3),
    dict(name="clip-96x3", model=clip(96, 3, 2), lr=1e-3),
    dict(name="clip-96x4", model=clip(96, 4, 3), lr=1e-3),
    dict(name="clip-128x4", model=clip(128, 4, 3), lr=7e-4),
    dict(name="clip-128x5", model=clip(128, 5, 3), lr=7e-4),
    dict(name="clip-160x5", model=clip(160, 5, 3), lr=7e-4),
]
family = [_seven[0], _seven[3], _seven[6]]
unit = dict(name="epochs", iterations=165)
metric = "concept/image_to_text_R@10"
floor = (
    "chance is 0.011; classifying the 94 head words by the nearest training icon on "
    "16x16 pixels gives 69 %"
)
grower = dict(type="lossless")
transfer = dict(type="none")
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(type="AdamW", weight_decay=0.1, betas=(0.9, 0.98)))

study = [
    dict(grower=dict(type="lossless")),
    dict(grower=dict(type="leading_block")),
    dict(grower=dict(type="leading_block"), transfer=dict(type="feature_mse")),
]
evaluations = 2

presets = dict(
    smoke=dict(lengths=(12,), seeds=2, control_seeds=1, sweeping=False, evaluations=1),
    cpu=dict(lengths=(650, 1300), seeds=5),
    long=dict(lengths=(650, 1300, 2600), seeds=5),
    seven=dict(family=_seven, lengths=(1300,), seeds=5),
    gpu=dict(lengths=(1300, 2600, 5200, 10400), seeds=5),
)
