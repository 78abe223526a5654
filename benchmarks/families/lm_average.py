"""The family of lm.py, whose members, alone or grown, deliver an average of their weights."""

_base_ = ["lm.py"]

average = dict(type="ema", half_life=0.02)
