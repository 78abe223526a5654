"""The family of lm.py, of which every member, alone or grown, delivers an average of its weights."""

_base_ = ["lm.py"]

average = dict(type="ema", half_life=0.02)
