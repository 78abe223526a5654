"""The family of lm.py under the other usual schedule, a cosine to a tenth of the peak rate."""

_base_ = ["lm.py"]

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.1),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.1, begin=0.1, end=1.0),
]
