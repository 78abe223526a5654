"""Measure what a teacher of another architecture is worth to a student that starts from nothing.

``python benchmarks/across.py --json across.json`` trains the chains of ``configs/`` whose members
differ in architecture: ViT to ConvNeXt, ViT to Swin, GPT-2 to Llama. Each student is trained with
its teacher and alone, on as many samples, with the same seed, batches and learning rate, and the
two are compared by seed. The teacher's own training is not charged, its passes are: ``flops`` is
the student's stage with them by that without. A gain below a table's interval is none.

Runs are work folders of compt below ``--work-dir``, so what is there is read, and what was
interrupted goes on, by the same command. Other chains may be given as paths.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring.rule import CONFIDENCE
from measuring.show import write
from rich import box
from rich.table import Table
from scipy.stats import t

from compt.chain import train
from compt.cli import parse_options
from compt.config import load_config
from compt.errors import ComptError
from compt.files import MANIFEST, STATE, stage_name
from compt.report.format import plain_console
from compt.report.record import StageRecord
from compt.workdir import individual_dir

CONFIGS = Path(__file__).parents[1] / "configs"
CHAINS = ("vit_convnext_chain", "vit_swin_chain", "gpt2_llama_chain")
COLUMNS = ("student", "metric", "seeds", "alone", "taught", "gain", "95 %", "FLOPs")


@dataclass(frozen=True)
class Compared:
    """A student with its teacher and alone, by seed."""

    config: str
    student: str
    metric: str
    higher_is_better: bool
    alone: tuple[float, ...]
    taught: tuple[float, ...]
    flops: float
    """Of the stage with the teacher's passes, by those without."""

    @property
    def gains(self) -> list[float]:
        """By how much each seed is better with the teacher."""
        sign = 1 if self.higher_is_better else -1
        return [sign * (a - b) for a, b in zip(self.taught, self.alone, strict=True)]

    @property
    def gain(self) -> float:
        """Their mean."""
        return statistics.fmean(self.gains)

    @property
    def half_width(self) -> float:
        """Half of the two-sided interval of the mean, which one seed does not have."""
        if len(self.gains) < 2:
            return math.nan
        error = statistics.stdev(self.gains) / math.sqrt(len(self.gains))
        return float(t.ppf((1 + CONFIDENCE) / 2, len(self.gains) - 1)) * error

    def to_json(self) -> dict[str, Any]:
        """Return what was measured, and what it comes to."""
        return {**asdict(self), "gain": self.gain, "half_width": self.half_width}


def measure(path: str, seeds: Sequence[int], work: Path, options: Mapping[str, Any]) -> list[Any]:
    """Train a chain with every seed, and compare each of its students with itself alone."""
    pairs: dict[int, list[tuple[StageRecord, StageRecord]]] = {}
    for seed in seeds:
        config = load_config(path, {**options, "seed": seed, "compare": True})
        folder = work / config.name / f"seed_{seed}"
        train(config, work_dir=folder, resume=(folder / STATE).is_file())
        for index, stage in enumerate(config.stages):
            if index:
                records = [
                    StageRecord.read(run / stage_name(index, stage.name) / MANIFEST)
                    for run in (folder, individual_dir(folder))
                ]
                pairs.setdefault(index, []).append((records[0], records[1]))
    return [_compared(Path(path).stem, own) for own in pairs.values()]


def _compared(config: str, pairs: Sequence[tuple[StageRecord, StageRecord]]) -> Compared:
    """Compare the records of a student, with the teacher and alone."""
    first = pairs[0][0]
    taught, alone = (tuple(_value(records[place]) for records in pairs) for place in (0, 1))
    flops = [chain.flops.total / single.flops.total for chain, single in pairs]
    higher = bool(first.main and first.main.higher_is_better)
    return Compared(
        config, first.name, str(first.main_metric), higher, alone, taught, statistics.fmean(flops)
    )


def _value(record: StageRecord) -> float:
    """Return the main metric, NaN where nothing finite was measured."""
    return math.nan if record.main is None or record.main.value is None else record.main.value


def table(rows: Sequence[Compared]) -> Table:
    """Return the rows for a terminal, differences in the metric's own unit."""
    grid = Table(box=box.SIMPLE_HEAD)
    for column in COLUMNS:
        grid.add_column(column, justify="left" if column == "student" else "right")
    for row in rows:
        grid.add_row(
            f"{row.config}: {row.student}",
            row.metric,
            str(len(row.gains)),
            f"{statistics.fmean(row.alone):.4f}",
            f"{statistics.fmean(row.taught):.4f}",
            f"{row.gain:+.4f}",
            "-" if math.isnan(row.half_width) else f"+- {row.half_width:.4f}",
            f"{row.flops:.2f}x",
        )
    return grid


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    paths = [str(CONFIGS / f"{name}.py") for name in CHAINS]
    parser.add_argument("configs", nargs="*", default=paths, help="chains, by default three")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/across"))
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    rows: list[Compared] = []
    try:
        options = parse_options(arguments.cfg_options)
        for path in arguments.configs:
            rows += measure(path, range(arguments.seeds), arguments.work_dir, options)
            if arguments.json:
                command = shlex.join(["python", *sys.argv])
                content = {"command": command, "rows": [row.to_json() for row in rows]}
                write(content, arguments.json)
            plain_console().print(table(rows[-1:]), highlight=False, soft_wrap=True)
    except ComptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    plain_console().print(table(rows), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
