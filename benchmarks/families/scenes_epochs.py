"""CLIP on few scenes, over many passes, as the paper trains: its own budgets are meant for that."""

_base_ = ["scenes.py"]

paradigm = dict(data=dict(num_scenes=8_000))
unit = dict(name="passes over 8,000 scenes", iterations=125)
