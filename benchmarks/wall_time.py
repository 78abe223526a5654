"""Say where the time of a chain goes that its FLOPs do not tell.

``python benchmarks/wall_time.py CHAIN ALONE`` reads the folders of a finished chain and of its
members trained alone (``compt train CONFIG --individual``, or what ``compare=True`` leaves), each
run in one go, and changes neither. What a chain saves in FLOPs and what it saves in seconds differ;
the ratio is followed from the one to the other, a cause at a time:

* the machine: smaller members reach fewer FLOPs a second, and a chain trains them most. Each
  member's FLOPs are charged at the rate that it had alone;
* loading: both runs wait for batches, members of a chain for fewer;
* training: what else a stage of the chain takes for a FLOP, beside the same member alone;
* growth, checkpoints, evaluations: what these take on either side;
* the rest: start-up, building models, writing exports and reports.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

from rich.table import Table

from compt.errors import ComptError, WorkDirError
from compt.files import MANIFEST, STATUS
from compt.report.format import duration, plain_console
from compt.report.record import StageRecord
from compt.report.watch.status import RunStatus

BESIDE = ("loading", "growth", "checkpoints", "evaluations")
"""What a stage takes beside its training."""


@dataclass(frozen=True)
class Stage:
    """What one member took, in seconds but for its FLOPs."""

    name: str
    flops: float
    training: float
    """Without waiting for batches."""
    loading: float
    growth: float
    checkpoints: float
    evaluations: float

    @property
    def seconds(self) -> float:
        """All of them together."""
        others: float = sum(getattr(self, part) for part in BESIDE)
        return self.training + others


@dataclass(frozen=True)
class Run:
    """All members of a run, and its whole time."""

    stages: tuple[Stage, ...]
    wall: float

    def total(self, part: Callable[[Stage], float]) -> float:
        """Add up something of all members."""
        return sum(map(part, self.stages))

    @property
    def rest(self) -> float:
        """What is in no stage's record."""
        return self.wall - self.total(lambda stage: stage.seconds)


def read_run(folder: Path, other: Run | None = None) -> Run:
    """Read a finished run, from its manifests and its status.json.

    Args:
        folder: of the run.
        other: one from which it may have taken over a member, with the time measured there.

    Raises:
        WorkDirError: it is not finished, was interrupted, or its records are of a version that
            did not measure all of this.
    """
    status = RunStatus.read(folder / STATUS)
    records = [StageRecord.read(path) for path in sorted(folder.glob(f"*_*/{MANIFEST}"))]
    if status.state != "finished" or len(records) != len(status.stages):
        raise WorkDirError("The run is not finished.", where=str(folder))
    stages = tuple(map(_stage, records))
    taken_over = sum(stage.seconds for stage in stages if other and stage in other.stages)
    run = Run(stages, status.written - status.started + taken_over)
    if run.rest < 0:
        raise WorkDirError(
            "The run was interrupted, so that its whole time is not known.",
            where=str(folder),
            do="Train it in one go.",
        )
    return run


def _stage(record: StageRecord) -> Stage:
    parts = (record.data_seconds, record.checkpoint_seconds, record.evaluation_seconds)
    loading, checkpoints, evaluations = parts
    if loading is None or checkpoints is None or evaluations is None:
        raise WorkDirError(
            "The record lacks how long the stage waited for batches, checkpoints or evaluations.",
            where=record.name,
            do="Train it with this version.",
        )
    return Stage(
        record.name,
        record.flops.total - record.flops.growth,
        record.seconds - record.growth_seconds - loading,
        loading,
        record.growth_seconds,
        checkpoints,
        evaluations,
    )


def ratios(chain: Run, alone: Run) -> Iterator[tuple[str, float]]:
    """Yield the ratio of the time alone by that in the chain, from FLOPs to seconds.

    Raises:
        WorkDirError: a member of the chain was not trained alone.
    """
    of_alone = {stage.name: stage for stage in alone.stages}
    if missing := [stage.name for stage in chain.stages if stage.name not in of_alone]:
        raise WorkDirError(f"Not trained alone: {', '.join(missing)}.")
    own = Run(tuple(of_alone[stage.name] for stage in chain.stages), alone.wall)
    flops, training = attrgetter("flops"), attrgetter("training")
    yield "in FLOPs", own.total(flops) / chain.total(flops)

    def at_own_rate(stage: Stage) -> float:
        same = of_alone[stage.name]
        return stage.flops * same.training / same.flops if same.flops else stage.training

    one, other = own.total(training), chain.total(at_own_rate)
    yield "at the rate of each member alone", one / other
    other = chain.total(training)
    yield "in seconds of training", one / other
    for name in BESIDE:
        part = attrgetter(name)
        one, other = one + own.total(part), other + chain.total(part)
        yield f"with {name}", one / other
    yield "in seconds, with the rest", (one + alone.rest) / (other + chain.rest)


def show(runs: Mapping[str, Run], steps: Sequence[tuple[str, float]]) -> None:
    """Print both runs by member, and the way from FLOPs to seconds."""
    console = plain_console()
    table = Table(title="Seconds of every member")
    parts = ("training", *BESIDE)
    for column in ("run", "member"):
        table.add_column(column, no_wrap=True)
    for column in ("GFLOP a second", *parts):
        table.add_column(column, justify="right", no_wrap=True)
    for label, run in runs.items():
        for stage in run.stages:
            rate = stage.flops / stage.training / 1e9 if stage.training else 0.0
            times = [f"{getattr(stage, part):.1f}" for part in parts]
            table.add_row(label, stage.name, f"{rate:.1f}", *times)
        share = f"{run.rest:.1f} of {duration(run.wall)}"
        table.add_row(label, "the rest", "", share)
    console.print(table)
    for name, ratio in steps:
        console.print(f"{ratio:6.2f}x  {name}", highlight=False)


def main() -> int:
    """Read two runs, print and write where their time went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chain", type=Path, help="the folder of a finished chain")
    parser.add_argument("alone", type=Path, help="the folder of its members trained alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it here")
    arguments = parser.parse_args()
    try:
        chain = read_run(arguments.chain)
        runs = {"chain": chain, "alone": read_run(arguments.alone, chain)}
        steps = [*ratios(runs["chain"], runs["alone"])]
    except ComptError as error:
        print(f"wall_time: {error}", file=sys.stderr)
        return error.exit_code
    show(runs, steps)
    if arguments.json:
        content = {name: asdict(run) for name, run in runs.items()} | {"ratios": dict(steps)}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
