"""The family of lm.py, whose study compares ways to widen and deepen at once."""

_base_ = ["lm.py"]

_mup = dict(noise_scale="mup")
study = [
    dict(grower=dict(type="lossless")),
    dict(grower=dict(type="lossless", **_mup)),
    dict(grower=dict(type="clone")),
    dict(grower=dict(type="clone", **_mup)),
    dict(grower=dict(type="aki")),
    dict(grower=dict(type="aki", blocks="zero")),
    dict(grower=dict(type="leading_block")),
    dict(
        grower=dict(type="probe", growers=["lossless", "clone", "aki", "leading_block"], lr=4e-3),
    ),
]
presets = dict(cpu=dict(study_lengths=(512,)))
