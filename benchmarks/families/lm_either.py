"""The family of lm.py as a chain whose hops each grow from the end or the plateau of their source.

A member grown from a plateau never decays, but delivers an average; the search takes what is
better. The chain was made after those of lm_plateau.py and lm_decays_first.py were judged, so other
seeds judge it.
"""

_base_ = ["lm.py"]

first_seed = 11
choices = [
    dict(trunk=False),
    dict(
        trunk=True,
        grown=dict(
            decay=False, average=dict(type="ema", half_life=0.1), warmup=0.0, optimizer_state=True
        ),
    ),
]
