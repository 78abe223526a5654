"""The CLIPs of scenes.py on few scenes, for many passes: the regime of the paper (docs/paper.md).

With ``paradigm.data.num_scenes=2000`` the smallest ends above chance after 16 passes, and what is
grown from it further above: it has learned them by heart.

Its budgets and its feature transfer stand beside its budgets alone, and held-out combinations and
icons beside what the members have seen.
"""

_base_ = ["scenes.py"]

paradigm = dict(data=dict(num_scenes=5_000))
unit = dict(name="passes over 5,000 scenes", iterations=78.125)
recipes = {
    "as published, without transfer": dict(
        grower=dict(type="leading_block"),
        transfer=dict(type="none"),
        fractions=(1.0, 3 / 16, 1 / 8),
    ),
}

presets = dict(
    smoke=dict(lengths=(16,), seeds=2, control_seeds=1, sweeping=False, evaluations=1),
    cpu=dict(lengths=(250, 500), seeds=5),
    long=dict(lengths=(250, 500, 1000), seeds=5),
    gpu=dict(lengths=(1000, 2000, 4000), seeds=5),
)
