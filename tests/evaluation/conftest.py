"""Fake suites, and work folders that nothing was trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import pytest

from compt import cli
from compt.interfaces import Metric, Suite
from compt.registry import SUITES, Range
from tests.evaluation.folders import WEIGHTS, write_run


class Sizes(Suite):
    """Measure how many bytes an export's weights have."""

    tool = "numpy"
    without_effect = frozenset({"num_workers"})
    measured: list[str] = []
    """The exports that were read, by their weights."""

    def __init__(
        self,
        *,
        data: Path = Path("here"),
        scale: Annotated[float, Range(positive=True)] = 1.0,
        num_workers: int = 0,
    ) -> None:
        self.scale = scale

    @classmethod
    def recognises(cls, export: Path) -> bool:
        return (export / WEIGHTS).is_file()

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        weights = (export / WEIGHTS).read_text()
        print("printed by a tool")
        self.measured.append(weights)
        if "broken" in weights:
            raise RuntimeError("no such thing")
        share = self.scale * len(weights) / 100
        return {
            "here/share": Metric(share, chance=0.1, unit="share"),
            "here/error": Metric(float("nan"), higher_is_better=False),
        }


class Nothing(Suite):
    """Read no model."""

    @classmethod
    def recognises(cls, export: Path) -> bool:
        return False

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        raise AssertionError("never called")


class Demanding(Nothing):
    """Read no model, and ask for data."""

    def __init__(self, *, data: Path) -> None: ...


@pytest.fixture(autouse=True)
def suites() -> Iterator[type[Sizes]]:
    """The fake suites, by the names of their classes in small letters."""
    before = dict(SUITES.module_dict)
    for kind in (Sizes, Nothing, Demanding):
        SUITES.register_module(name=kind.__name__.lower(), module=kind)
    Sizes.measured.clear()
    yield Sizes
    SUITES.module_dict.clear()
    SUITES.module_dict.update(before)


@pytest.fixture
def work_dir(tmp_path) -> Callable[..., Path]:
    """Write a work folder whose members have these weights, None for one that is not finished."""
    return lambda name="run", **members: write_run(tmp_path / name, **members)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def evaluate(capsys) -> Callable[..., Ended]:
    """Run ``compt eval`` in this process."""

    def call(*arguments: object) -> Ended:
        code = cli.main(["eval", *map(str, arguments)])
        return Ended(code, *capsys.readouterr())

    return call
