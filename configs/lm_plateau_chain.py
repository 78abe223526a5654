"""The Llamas of lm_chain.py, grown from plateau to plateau, averages delivered in place of a decay.

Run:    mim train compt configs/lm_plateau_chain.py
Needs:  as lm_chain.py
Gives:  bits a byte of held-out files (chance 8.01): llama-t 2.14, llama-s 2.13, llama-b 2.05
Alone:  trained too, for the same samples, with a decay: 2.14, 2.57, 3.14; one seed, see
        docs/config.md#from-plateau-to-plateau for how and docs/study.md for what it saves
"""

_base_ = ["lm_chain.py"]

# A plateau to grow from, and a decay that only the first member and members alone have.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.05),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.6, end=1.0),
]
trunk = True
grown = dict(
    decay=False,
    average=dict(type="ema", half_life=0.1),
    warmup=0.0,
    optimizer_state=True,
    lr_mult=0.5,
)
