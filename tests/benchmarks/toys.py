"""A toy family that really trains, in a fraction of a second a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring.family import Family, read_family

from tests.conftest import config_file

FAMILY: dict[str, Any] = dict(
    custom_imports=dict(imports=["compt.testing.toy"]),
    paradigm=dict(type="toy", samples=256),
    family=[
        dict(name="a", model=dict(width=8, depth=1), lr=1e-2),
        dict(name="b", model=dict(width=16, depth=2), lr=1e-2),
    ],
    floor="a tenth is right by chance",
    grower=dict(type="lossless"),
    transfer=dict(type="none"),
    train_dataloader=dict(batch_size=32),
    optim_wrapper=dict(optimizer=dict(type="AdamW")),
    param_scheduler=[
        dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2),
        dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.6, end=1.0),
    ],
    evaluations=1,
    study=[dict(grower=dict(type="leading_block"), fractions=(0.5,))],
    presets=dict(
        smoke=dict(lengths=(8,), seeds=2, control_seeds=1, sweeping=False),
        gpu=dict(lengths=(8,), seeds=2, control_seeds=1, sweeping=False),
    ),
)


def family_file(folder: Path, **changes: Any) -> Path:
    return config_file(folder, {**FAMILY, **changes}, "toys.py")


def toys(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Family:
    return read_family(str(family_file(folder, **changes)), "smoke", options or {})
