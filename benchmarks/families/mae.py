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


family = [
    dict(name="mae-64x3", model=mae(64, 3), lr=4e-3),
    dict(name="mae-64x4", model=mae(64, 4), lr=4e-3),
    dict(name="mae-96x4", model=mae(96, 4), lr=4e-3),
    dict(name="mae-96x5", model=mae(96, 5), lr=4e-3),
    dict(name="mae-128x5", model=mae(128, 5), lr=2e-3),
    dict(name="mae-128x6", model=mae(128, 6), lr=2e-3),
    dict(name="mae-160x6", model=mae(160, 6), lr=2e-3),
]
floor = "predicting the mean of every patch gives 1.0"
grower = dict(type="lossless")
transfer = dict(type="none")
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", weight_decay=0.05, betas=(0.9, 0.95)), clip_grad=dict(max_norm=1.0)
)

study = [
    dict(grower=dict(type="scratch"), fractions=(0.25,)),
    dict(grower=dict(type="scratch"), transfer=dict(type="feature_mse"), fractions=(0.25,)),
    dict(grower=dict(type="leading_block"), fractions=(0.25,)),
    dict(grower=dict(type="clone"), fractions=(0.25,)),
    dict(grower=dict(type="lossless")),
    dict(grower=dict(type="leading_block"), transfer=dict(type="feature_mse")),
    dict(grower=dict(type="lossless"), transfer=dict(type="feature_mse")),
    dict(grower=dict(type="lossless"), grown=dict(lr_mult=0.5), fractions=(0.25,)),
    dict(grower=dict(type="lossless"), grown=dict(lr_mult=2.0), fractions=(0.25,)),
    dict(grower=dict(type="lossless"), grown=dict(new_lr_mult=2.0), fractions=(0.25, 0.5)),
]

presets = dict(
    smoke=dict(iters=12, seeds=1, fractions=(0.5,), rates=1, evaluations=2),
    cpu=dict(
        iters=1000,
        seeds=3,
        fractions=(0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5, 0.625, 0.75, 1.0),
        longest=4.0,
        lr_mults=(1.0, 0.5, 0.25, 0.125, 0.0625),
        rates=3,
        # A quarter: with the 3/16 that --search finds, other seeds miss one of three by 0.002.
        chains=[
            dict(fractions=(1.0, *[0.25] * (n - 1)), lr_mults=(1.0, *[0.25] * (n - 1)))
            for n in (3, 4, 7)
        ],
        evaluations=8,
    ),
    gpu=dict(
        iters=3200,
        seeds=3,
        fractions=(0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0),
        longest=4.0,
        lr_mults=(1.0, 0.5, 0.25, 0.125, 0.0625),
        rates=3,
        evaluations=20,
    ),
)
