"""What all families share: a long warm-up. At 5 % members alone stand half the learning rate, and end clearly worse."""

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2),
    dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.2, end=1.0),
]
