"""Masked autoencoders on scenes, few passes over many: sizes that differ, unlike those of mae.py.

See benchmarks/README.md for the keys.
"""

_base_ = ["_base_/schedule.py"]
paradigm = dict(
    type="mae",
    data=dict(type="scenes", num_scenes=100_000),
    probe=None,
    pipeline=[dict(type="PackInputs")],
)


def mae(width, layers):
    patch = dict(patch_size=6)
    return dict(
        type="mmpretrain.MAE",
        backbone=dict(
            type="mmpretrain.MAEViT",
            arch=dict(
                embed_dims=width,
                num_layers=layers,
                num_heads=width // 16,
                feedforward_channels=4 * width,
            ),
            img_size=48,
            mask_ratio=0.5,
            **patch,
        ),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches=64,
            embed_dim=width,
            decoder_embed_dim=width,
            decoder_depth=1,
            decoder_num_heads=width // 16,
            **patch,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=False,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
            **patch,
        ),
        init_cfg=[
            dict(type="Xavier", layer="Linear", distribution="uniform"),
            dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
        ],
    )


family = [
    dict(name="mae-16x1", model=mae(16, 1), lr=1.6e-2),
    dict(name="mae-32x2", model=mae(32, 2), lr=8e-3),
    dict(name="mae-64x4", model=mae(64, 4), lr=4e-3),
]
unit = dict(name="passes over 100,000 scenes", iterations=1562.5)
floor = "the mean colour of all pixels"
grower = dict(type="lossless")
sure = True
choices = [
    dict(grower=dict(type="lossless")),
    dict(grower=dict(type="leading_block")),
    dict(grower=dict(type="shrink_perturb", grower="leading_block", keep=0.7)),
    dict(
        grower=dict(type="leading_block"),
        trunk=True,
        grown=dict(
            decay=False, average=dict(type="ema", half_life=0.1), warmup=0.0, optimizer_state=True
        ),
    ),
]
transfer = dict(type="none")
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", weight_decay=0.05, betas=(0.9, 0.95)), clip_grad=dict(max_norm=1.0)
)
evaluations = 1

presets = dict(
    smoke=dict(lengths=(12,), seeds=2, control_seeds=1, sweeping=False),
    cpu=dict(lengths=(250, 500), seeds=5),
    long=dict(lengths=(250, 500, 1000), seeds=5),
    gpu=dict(lengths=(1000, 2000, 4000), seeds=5),
)
