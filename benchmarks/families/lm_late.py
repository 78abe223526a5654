"""One hop of lm.py with a late decay, so that a plateau has more of the source's training."""

_base_ = ["lm.py"]

family = [
    dict(_base_.family[2], lr=0.0131),
    dict(_base_.family[3], lr=0.0067),
]
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.8, end=1.0),
]
_shared = dict(grower=dict(type="lossless"), fractions=(0.25, 0.5))
study = [
    dict(**_shared, trunk=True, grown=dict(warmup=0.0, optimizer_state=True)),
    dict(**_shared, trunk=True, grown=dict(warmup=0.05)),
    dict(**_shared),
    dict(**_shared, trunk=True, grown=dict(warmup=0.05, lr_mult=0.5)),
]
# No sweep: the rates are the best ones of lm.py at this length, and of its neighbour.
presets = dict(
    smoke=dict(lengths=(16,), seeds=2, control_seeds=1, sweeping=False, evaluations=1),
    long=dict(lengths=(512,), seeds=5, study_lengths=(512,), sweeping=False),
)
