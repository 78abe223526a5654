"""The family of lm.py as a chain that never decays: averages are delivered, plateaus grown from.

Members alone have the decay, with which they are better than with an average.
"""

_base_ = ["lm.py"]

in_chain = dict(
    trunk=True,
    average=dict(type="ema", half_life=0.1),
    param_scheduler=[dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2)],
    grown=dict(warmup=0.0, optimizer_state=True),
)
