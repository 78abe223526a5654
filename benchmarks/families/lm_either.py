"""The family of lm.py as a chain whose grown members never decay, but deliver an average.

Each hop grows from the end of its source, or from its plateau, whichever the search finds better.
The chain was made after those of lm_plateau.py and lm_decays_first.py were judged, so other seeds
judge it: 11 to 18 without ``sure``, by which the second member missed the rule, 21 to 28 with it.
"""

_base_ = ["lm.py"]

first_seed = 21
sure = True
_average = dict(type="ema", half_life=0.1)
choices = [
    dict(trunk=False, grown=dict(decay=False, average=_average)),
    dict(
        trunk=True,
        grown=dict(decay=False, average=_average, warmup=0.0, optimizer_state=True),
    ),
]
