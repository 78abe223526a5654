"""The family of lm.py as a chain whose grown members never decay, but deliver averages.

The first member is trained as alone, and the second grows from its end; all others grow from the
plateau of the one before. The chain was made after those of lm_plateau.py and lm_decays_first.py
were judged, so other seeds judge it.
"""

_base_ = ["lm.py"]

first_seed = 11
grown = dict(warmup=0.0, optimizer_state=True)
as_grown = dict(
    trunk=True,
    average=dict(type="ema", half_life=0.1),
    param_scheduler=[dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2)],
)
# The second may begin anew, with a warm-up and an optimizer that remembers nothing.
choices = [dict(grown=grown), dict(grown=dict(lr_mult=1.0))]
