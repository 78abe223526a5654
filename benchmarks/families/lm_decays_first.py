"""The family of lm.py as a chain in which only the first member decays, as it does alone.

The second grows from the plateau before that, all others from that of the one before; what grown
members deliver is an average.
"""

_base_ = ["lm.py"]

trunk = True
grown = dict(warmup=0.0, optimizer_state=True)
as_grown = dict(
    average=dict(type="ema", half_life=0.1),
    param_scheduler=[dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2)],
)
