"""Masked autoencoders on icons, many epochs over little data.

See benchmarks/README.md for the keys.
"""

_base_ = ["_base_/schedule.py"]
paradigm = dict(
    type="mae",
    data=dict(type="icons"),
    probe=None,
    pipeline=[
        dict(type="RandomResizedCrop", scale=32, crop_ratio_range=(0.5, 1.0)),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackInputs"),
    ],
)


def mae(width, layers):
    patch = dict(patch_size=4)
    return dict(
        type="mmpretrain.MAE",
        backbone=dict(
            type="mmpretrain.MAEViT",
            arch=dict(
                embed_dims=width,
                num_layers=layers,
                num_heads=width // 32,
                feedforward_channels=4 * width,
            ),
            img_size=32,
            mask_ratio=0.75,
            **patch,
        ),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches=64,
            embed_dim=width,
            decoder_embed_dim=64,
            decoder_depth=1,
            decoder_num_heads=2,
            **patch,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=True,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
            **patch,
        ),
        init_cfg=[
            dict(type="Xavier", layer="Linear", distribution="uniform"),
            dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
        ],
    )


_seven = [
    dict(name="mae-64x3", model=mae(64, 3), lr=4e-3),
    dict(name="mae-64x4", model=mae(64, 4), lr=4e-3),
    dict(name="mae-96x4", model=mae(96, 4), lr=4e-3),
    dict(name="mae-96x5", model=mae(96, 5), lr=4e-3),
    dict(name="mae-128x5", model=mae(128, 5), lr=2e-3),
    dict(name="mae-128x6", model=mae(128, 6), lr=2e-3),
    dict(name="mae-160x6", model=mae(160, 6), lr=2e-3),
]
family = [_seven[0], _seven[3], _seven[6]]
unit = dict(name="epochs", iterations=165)
floor = "predicting the mean of every patch gives 1.0"
grower = dict(type="lossless")
transfer = dict(type="none")
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", weight_decay=0.05, betas=(0.9, 0.95)), clip_grad=dict(max_norm=1.0)
)

study = [
    dict(grower=dict(type="lossless")),
    dict(grower=dict(type="leading_block")),
    dict(grower=dict(type="leading_block"), transfer=dict(type="feature_mse")),
]
evaluations = 2

presets = dict(
    smoke=dict(lengths=(12,), seeds=2, control_seeds=1, sweeping=False, evaluations=1),
    cpu=dict(lengths=(500, 1000), seeds=5),
    long=dict(lengths=(500, 1000, 2000), seeds=5),
    seven=dict(family=_seven, lengths=(1000,), seeds=5),
    gpu=dict(lengths=(1600, 3200, 6400), seeds=5),
)
