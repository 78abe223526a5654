"""A bench on which nothing is trained: what a run ends with follows from a formula.

A member alone has ``level + slope * log2(iters / ITERS)``. A grown one stands, on the curve of the
same member alone, where its source stands on it, and its own iterations further, less a tax that is
a share of ``ITERS``. Rates that are not the best take some of the quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measuring.family import AS_PUBLISHED, PUBLISHED, Family, Unit
from measuring.rates import STEP
from measuring.runs import Bench

ITERS = 1024


@dataclass(frozen=True)
class World:
    """What members come to.

    Rates are in steps of the grid from 1, for members alone and as a factor for grown ones.
    """

    levels: Sequence[float] = (0.0, 0.5, 1.0)
    slope: float = 0.25
    tax: float = 0.125
    taxes: Mapping[str, float] = field(default_factory=dict)
    """By grower, where one has another than ``tax``."""
    costs: Sequence[float] = (1.0, 2.0, 4.0)
    """FLOPs of an iteration."""
    best: Sequence[int] = (0, 0, 0)
    best_mult: int = -2
    loss_by_step: float = 0.01
    """Times the square of the steps that a rate is off."""
    diverges: Callable[[FakeJob], bool] = lambda job: False
    noise: Callable[[FakeJob], float] = lambda job: 0.0

    def quality(self, job: FakeJob) -> float:
        if self.diverges(job):
            return -math.inf
        steps = math.log(job.rate, STEP) - self.best[job.index]
        off = steps - (self.best_mult if job.source else 0)
        return self.at(job.index, self.stands(job)) - self.loss_by_step * off**2 + self.noise(job)

    def at(self, index: int, length: float) -> float:
        return self.levels[index] + self.slope * math.log2(length / ITERS)

    def to(self, index: int, quality: float) -> float:
        return ITERS * 2 ** ((quality - self.levels[index]) / self.slope)

    def stands(self, job: FakeJob) -> float:
        if job.source is None:
            return job.iters
        start = self.to(job.index, self.quality(job.source) - self.noise(job.source))
        grower = (job.ways or {}).get("grower", {}).get("type")
        return max(1.0, start + job.iters - self.taxes.get(grower, self.tax) * ITERS)


@dataclass(frozen=True)
class FakeJob:
    world: World
    index: int
    iters: int
    rate: float
    seed: int
    source: FakeJob | None = None
    ways: Any = field(default=None, hash=False)
    """Keys of a config beyond those that all runs share."""

    @property
    def diverged(self) -> str:
        return "nan" if self.world.diverges(self) else ""

    @property
    def flops(self) -> float:
        return 0.0 if self.diverged else self.world.costs[self.index] * self.iters

    @property
    def config(self) -> dict[str, Any]:
        return {"chain": [{"iters": self.iters}]}

    @property
    def result(self) -> Any:
        seconds = 2.0 * self.iters if self.source else 1.0 * self.iters
        losses = {"val/loss": 1.0, "far/loss": 2.0, "far/accuracy": 0.0}
        metrics = {
            name: SimpleNamespace(value=-factor * self.world.quality(self), sign=-1)
            for name, factor in losses.items()
        }
        params = 1000 * (1 + self.index)
        return SimpleNamespace(
            record=SimpleNamespace(params=params, seconds=seconds, metrics=metrics)
        )


class FakeBench(Bench):
    """Remembers what would have been trained, in ``trained``.

    Its metric is a loss, so quality is its negative; on the split ``far`` losses are twice as high.
    """

    def __init__(self, world: World, **changes: Any) -> None:
        super().__init__(family_of(world, **changes), Path("nowhere"))
        self.world = world
        self.trained: list[FakeJob] = []

    def say(self, text: str) -> None:
        pass

    def alone(self, index: int, iters: int, rate: float, seed: int, **keys: Any) -> Any:
        return FakeJob(self.world, index, iters, rate, seed, ways=keys)

    def grown(self, index, source, iters, rate, seed, ways=None) -> Any:
        assert source in self.trained and not source.diverged, "nothing to grow from"
        ways = self.family.ways if ways is None else ways
        return FakeJob(self.world, index, iters, rate, seed, source, ways)

    def run(self, jobs, *, diverging: bool = True) -> None:
        for job in jobs:
            assert diverging or not job.diverged
            if job not in self.trained:
                self.trained.append(job)

    def quality_of(self, job: Any) -> float:
        assert job in self.trained, "read before it was run"
        return self.world.quality(job)

    def value_of(self, job: Any) -> float:
        return math.nan if job.diverged else -self.quality_of(job)

    def metric(self, member: Any) -> str:
        return "val/loss"

    def sign(self, member: Any) -> int:
        return -1

    def grown_jobs(self) -> list[FakeJob]:
        return [job for job in self.trained if job.source]


def family_of(world: World, **changes: Any) -> Family:
    names = "abcdefg"[: len(world.levels)]
    content: dict[str, Any] = dict(
        name="made-smoke",
        members=tuple({"name": name, "model": {}, "lr": 1.0} for name in names),
        base={"grower": {"type": "lossless"}, "train_dataloader": {"batch_size": 4}},
        lengths=(ITERS,),
        seeds={ITERS: 5},
        sweeping=True,
        control_seeds=2,
        metric=None,
        floor="none",
        unit=Unit("epochs", ITERS / 2),
        recipes={AS_PUBLISHED: PUBLISHED},
        study=(),
        study_lengths=(ITERS,),
        chains={},
    )
    return Family(**{**content, **changes})
