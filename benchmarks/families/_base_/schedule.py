"""What all families share, a long warm-up, the full rate up to 60 %, then linearly to zero.

Part of the baseline's tuning (docs/study.md): with half the warm-up, or a cosine, language models
alone end worse.
"""

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.6, end=1.0),
]
