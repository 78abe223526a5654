"""CLIP on scenes of coloured icons, few passes over many scenes.

See benchmarks/README.md for the keys.
"""

_base_ = ["_base_/schedule.py"]
paradigm = dict(
    type="clip",
    augment=None,
    tokenizer=dict(type="words", size=2320),
    data=dict(type="scenes", num_scenes=100_000),
)


def clip(width, vision_layers, text_layers):
    return dict(
        embed_dim=128,
        vision_cfg=dict(
            image_size=48, patch_size=12, width=width, layers=vision_layers, head_width=16
        ),
        text_cfg=dict(context_length=24, width=width, layers=text_layers, heads=width // 16),
    )


family = [
    dict(name="clip-16x1", model=clip(16, 1, 1), lr=5.6e-3),
    dict(name="clip-32x2", model=clip(32, 2, 1), lr=2.8e-3),
    dict(name="clip-64x4", model=clip(64, 4, 2), lr=1.4e-3),
]
unit = dict(name="passes over 100,000 scenes", iterations=1562.5)
metric = "seen/contrastive_loss"
floor = "chance is 4.61 nats (100 pairs) and a recall at 10 of 0.005"
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
    optimizer=dict(type="AdamW", weight_decay=0.1, betas=(0.9, 0.98)),
    clip_grad=dict(max_norm=1.0),
)
_short, _whole = (0.25, 0.5), (0.25, 0.5, 1.0)
_corner = dict(grower=dict(type="leading_block"))
study = [
    dict(grower=dict(type="scratch"), fractions=_short),
    dict(**_corner, fractions=_whole),
    dict(grower=dict(type="lossless"), fractions=_whole),
    dict(grower=dict(type="shrink_perturb", keep=0.7), fractions=_whole),
    dict(grower=dict(type="shrink_perturb", keep=0.5), fractions=_whole),
    dict(grower=dict(type="shrink_perturb", grower="lossless"), fractions=_whole),
    dict(grower=dict(type="clone"), fractions=(0.5,)),
    dict(grower=dict(type="aki"), fractions=(0.5,)),
    dict(
        grower=dict(type="probe", growers=["lossless", "leading_block"], lr=3.3e-3),
        fractions=(0.5,),
    ),
    dict(**_corner, grown=dict(lr_mult=0.5), fractions=_short),
    dict(**_corner, grown=dict(lr_mult=1.4), fractions=_short),
    dict(**_corner, trunk=True, fractions=_short),
    dict(**_corner, transfer=dict(type="feature_mse"), fractions=_whole),
    dict(**_corner, transfer=dict(type="feature_mse", until=0.3), fractions=_short),
]
evaluations = 1

presets = dict(
    short=dict(lengths=(125,), seeds=5),
    smoke=dict(lengths=(16,), seeds=2, control_seeds=1, sweeping=False, evaluations=1),
    cpu=dict(lengths=(250, 500), seeds=5),
    long=dict(lengths=(250, 500, 1000, 2000), seeds=5, study_lengths=(500,)),
    gpu=dict(lengths=(1000, 2000, 4000, 8000, 16000), seeds=5),
)
