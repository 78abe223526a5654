"""Is a family as good when it is trained as a chain, and for what fraction of the compute?

``python benchmarks/acceleration.py causal_lm --family 3 --preset cpu --json lm.json`` trains, in this order:

1. every member alone, from scratch, at learning rates a factor of two apart, until the best has a worse one on both
   sides (seed 0): the baseline is tuned, at its full budget;
2. every larger member grown from the one before it, at growing fractions of that budget, until it is as good as the
   member alone (seed 0): the chain's budgets;
3. both again with fresh seeds, with nothing left to choose. These alone are reported.

A chain is charged all of its stages, teacher passes and learned growth; the family's ratio is counted only if every
member is as good as alone, within the standard error of the difference. Interrupted, the same command goes on: every
run is a work folder of compt. PARADIGM is a file of ``benchmarks/families``, or the path of one: a family of your own,
with growers and paradigms from plug-ins.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich import box
from rich.table import Table

import compt
from compt.errors import ComptError, ConfigError
from compt.files import atomic
from compt.manifest import environment
from compt.prediction import fraction_left
from compt.report import report
from compt.results import MemberReport, RunReport
from compt.tables import duration, plain_console, quantity

FAMILIES = Path(__file__).parent / "families"
OWN = ("family", "presets", "floor")
PRESET = ("iters", "seeds", "fractions", "rates")
SIZES = {3: (0, 3, 6), 4: (0, 2, 4, 6), 7: tuple(range(7))}
"""Which of seven members make the smaller families: the smallest and the largest always."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured: members, their budget alone, and what may be chosen."""

    name: str
    members: tuple[Mapping[str, Any], ...]
    base: Mapping[str, Any]
    """The keys of a chain's config that all runs share."""
    iters: int
    seeds: int
    fractions: tuple[float, ...]
    rates: int
    """Learning rates to begin the sweep with; 1 for no sweep."""
    floor: str


def read_plan(paradigm: str, family: int, preset: str, options: Mapping[str, Any]) -> Plan:
    """Read a family's file.

    Raises:
        ConfigError: it cannot be read, or lacks members or the preset.
    """
    path = Path(paradigm) if Path(paradigm).is_file() else FAMILIES / f"{paradigm}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FAMILIES.glob("*.py")))
        raise ConfigError(f"There is no family '{paradigm}'.", do=f"Name a file, or one of: {known}.")
    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    content = config.to_dict()
    if preset not in content.get("presets", {}):
        raise ConfigError(f"'{path.name}' has no preset '{preset}'.", where=str(path), do="Add it to `presets`.")
    members = content["family"]
    if len(members) == 7:
        members = [members[i] for i in SIZES[family]]
    elif len(members) != family:
        raise ConfigError(f"'{path.name}' has {len(members)} members.", do=f"Use --family {len(members)}, or give 7.")
    chosen = content["presets"][preset]
    base = {key: value for key, value in content.items() if key not in OWN}
    base |= {key: value for key, value in chosen.items() if key not in PRESET}
    return Plan(
        name=f"{path.stem}-{preset}",
        members=tuple(members),
        base=base,
        iters=chosen["iters"],
        seeds=chosen["seeds"],
        fractions=tuple(sorted(chosen["fractions"])),
        rates=chosen["rates"],
        floor=content.get("floor", ""),
    )


class Bench:
    """Runs what a plan needs, each run in a work folder of its own; what is there already is read."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.plan, self.root = plan, root / plan.name
        self.console = plain_console()
        self.spent = {"sweep": 0.0, "search": 0.0}
        """FLOPs of choosing: rates of the baseline, budgets of the chain."""

    def train(self, folder: Path, chain: Sequence[Mapping[str, Any]], seed: int, *, alone: bool = False) -> RunReport:
        """Train a chain, or what is left of it."""
        config = {**deepcopy(dict(self.plan.base)), "chain": deepcopy(list(chain)), "seed": seed}
        config["individual"] = {"iters": self.plan.iters}
        if alone:  # a chain's parts: another grower is no reason to train alone again
            config = {key: value for key, value in config.items() if key not in ("grower", "transfer", "grown")}
        path = self.root / folder
        compt.train(config, work_dir=path, resume=(path / "chain.json").is_file(), individual=alone)
        return report([path]).runs[0]

    def member(self, index: int, rate: float, iters: int) -> dict[str, Any]:
        """One stage of a config: a member with its learning rate and budget."""
        given = self.plan.members[index]
        return {
            "name": given["name"],
            "model": given["model"],
            "iters": iters,
            "optim_wrapper": {"optimizer": {"lr": rate}},
        }

    def alone(self, index: int, rate: float, seed: int) -> MemberReport:
        """A member trained from scratch, in full."""
        name = self.plan.members[index]["name"]
        folder = Path("alone") / name / f"lr_{rate:g}" / f"seed_{seed}"
        return self.train(folder, [self.member(index, rate, self.plan.iters)], seed, alone=True).members[0]

    def sweep(self, index: int) -> dict[float, float]:
        """Learning rate -> held-out figure, lower is better: extended until the best is inside."""
        start = self.plan.members[index]["lr"]
        rates = [start * 2.0 ** (i - self.plan.rates // 2) for i in range(self.plan.rates)]
        found: dict[float, float] = {}
        while True:
            for rate in rates:
                if rate not in found:
                    found[rate] = self._badness(index, rate)
            best = min(found, key=lambda rate: found[rate])
            if self.plan.rates == 1 or min(found) < best < max(found):
                return dict(sorted(found.items()))
            rates = [best / 2 if best == min(found) else best * 2]

    def _badness(self, index: int, rate: float) -> float:
        name = self.plan.members[index]["name"]
        try:
            member = self.alone(index, rate, 0)
        except compt.TrainingError:  # too high a rate diverges
            return math.inf
        self.spent["sweep"] += member.flops
        self.console.print(f"  {name} alone, lr {rate:g}: {figure(member):.4f} ({duration(member.seconds)})")
        return sign(member) * figure(member)

    def search(self, index: int, rates: Sequence[float], before: Path) -> tuple[float | None, Path]:
        """The smallest fraction at which a grown member is as good as alone (seed 0), and its stage's folder.

        None where even the largest fraction is not enough; the chain then goes on with that.
        """
        goal = self.alone(index, rates[index], 0)
        name = self.plan.members[index]["name"]
        for fraction in self.plan.fractions:
            folder = Path("search") / f"{index}_{name}" / f"{before.parent.name}_{fraction:g}"
            first = {**self.member(index - 1, rates[index - 1], 0), "init": str(before)}
            chain = [first, self.member(index, rates[index], self.iters(fraction))]
            member = self.train(folder, chain, 0).members[1]
            self.spent["search"] += member.flops
            enough = sign(goal) * figure(member) <= sign(goal) * figure(goal)
            self.console.print(f"  {name} grown, {fraction:g}: {figure(member):.4f} (alone {figure(goal):.4f})")
            stage = self.root / folder / f"02_{name}"
            if enough:
                return fraction, stage
        return None, stage

    def iters(self, fraction: float) -> int:
        """Iterations of a fraction of the budget."""
        return max(1, round(fraction * self.plan.iters))

    def run(self) -> dict[str, Any]:
        """Measure everything, and return the result."""
        self.console.print(f"{self.plan.name}: rates of every member alone, {self.plan.iters} iterations")
        sweeps = [self.sweep(i) for i in range(len(self.plan.members))]
        rates = [min(found, key=lambda rate, found=found: found[rate]) for found in sweeps]
        self.console.print("budgets of the grown members")
        stage = self.root / "alone" / self.plan.members[0]["name"] / f"lr_{rates[0]:g}" / "seed_0"
        stage = stage / f"01_{self.plan.members[0]['name']}"
        fractions: list[float] = [1.0]
        missed: list[str] = []
        for index in range(1, len(self.plan.members)):
            fraction, stage = self.search(index, rates, stage)
            fractions.append(fraction or self.plan.fractions[-1])
            missed += [] if fraction else [self.plan.members[index]["name"]]
        self.console.print("the chain and every member alone, fresh seeds")
        seeds = range(1, self.plan.seeds + 1) if self.plan.rates > 1 else range(self.plan.seeds)
        chains, alone = [], []
        for seed in seeds:
            members = [self.member(i, rates[i], self.iters(fractions[i])) for i in range(len(rates))]
            label = "-".join(f"{fraction:g}" for fraction in fractions)
            chains.append(self.train(Path("chain") / label / f"seed_{seed}", members, seed).members)
            alone.append([self.alone(i, rates[i], seed) for i in range(len(rates))])
            self.console.print(f"  seed {seed} done")
        return result(self.plan, sweeps, rates, fractions, missed, chains, alone, self.spent, list(seeds))


def figure(member: MemberReport) -> float:
    """The main held-out figure."""
    return member.main["value"] if member.main else math.nan


def sign(member: MemberReport) -> int:
    """1 where lower figures are better, -1 where higher are."""
    return -1 if member.main and member.main["higher_is_better"] else 1


@dataclass(frozen=True)
class Row:
    """One member: what it reaches alone and in the chain, and what both cost, means over the seeds."""

    name: str
    params: int
    lr: float
    fraction: float
    alone: float
    alone_deviation: float
    chain: float
    chain_deviation: float
    difference: float
    """Of the chain against alone, better is positive."""
    standard_error: float
    """Of the difference, from the seeds; NaN with one."""
    as_good: bool
    alone_flops: float
    chain_flops: float
    alone_seconds: float
    chain_seconds: float
    predicted_fraction: float
    """Before the chain is run: the part of the member's curve alone that lies beyond the source's figure."""
    predicted_deviation: float


def rows(plan: Plan, rates: Sequence[float], fractions: Sequence[float], chains: Any, alone: Any) -> Iterator[Row]:
    """Every member over all seeds."""
    for i, given in enumerate(plan.members):
        ours, theirs = [figure(run[i]) for run in chains], [figure(run[i]) for run in alone]
        gains = [sign(run[i]) * (b - a) for run, a, b in zip(alone, ours, theirs, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        gain = statistics.mean(gains)
        predicted = [fraction_left(run[i - 1], run[i]) if i else 1.0 for run in alone]
        yield Row(
            name=given["name"],
            params=alone[0][i].params,
            lr=rates[i],
            fraction=fractions[i],
            alone=statistics.mean(theirs),
            alone_deviation=statistics.stdev(theirs) if len(theirs) > 1 else math.nan,
            chain=statistics.mean(ours),
            chain_deviation=statistics.stdev(ours) if len(ours) > 1 else math.nan,
            difference=gain,
            standard_error=error,
            as_good=gain >= 0 or (math.isfinite(error) and gain >= -error),
            alone_flops=statistics.mean(run[i].flops for run in alone),
            chain_flops=statistics.mean(run[i].flops for run in chains),
            alone_seconds=statistics.mean(run[i].seconds for run in alone),
            chain_seconds=statistics.mean(run[i].seconds for run in chains),
            predicted_fraction=statistics.mean(predicted),
            predicted_deviation=statistics.stdev(predicted) if len(predicted) > 1 else math.nan,
        )


def result(
    plan: Plan,
    sweeps: Sequence[Mapping[float, float]],
    rates: Sequence[float],
    fractions: Sequence[float],
    missed: Sequence[str],
    chains: Any,
    alone: Any,
    spent: Mapping[str, float],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Everything that was measured, as JSON types."""
    table = list(rows(plan, rates, fractions, chains, alone))
    costs = {way: sum(getattr(row, f"{way}_flops") for row in table) for way in ("alone", "chain")}
    seconds = {way: sum(getattr(row, f"{way}_seconds") for row in table) for way in ("alone", "chain")}
    everyone = all(row.as_good for row in table)
    predicted = sum(row.alone_flops * row.predicted_fraction for row in table)
    return {
        "name": plan.name,
        "command": shlex.join(["python", *sys.argv]),
        "iters": plan.iters,
        "seeds": list(seeds),
        "grower": plan.base.get("grower"),
        "transfer": plan.base.get("transfer"),
        "floor": plan.floor,
        "metric": alone[0][0].main_metric,
        "higher_is_better": sign(alone[0][0]) < 0,
        "sweeps": {
            given["name"]: {f"{rate:g}": value for rate, value in found.items()}
            for given, found in zip(plan.members, sweeps, strict=True)
        },
        "members": [asdict(row) for row in table],
        "missed": [row.name for row in table if not row.as_good],
        "not_found": list(missed),
        "flops": costs,
        "seconds": seconds,
        "acceleration": costs["alone"] / costs["chain"] if everyone else None,
        "acceleration_if_none_were_missed": costs["alone"] / costs["chain"],
        "acceleration_seconds": seconds["alone"] / seconds["chain"] if everyone else None,
        "acceleration_of_the_largest_alone": table[-1].alone_flops / costs["chain"] if table[-1].as_good else None,
        "predicted_acceleration": costs["alone"] / predicted,
        "spent_on_choosing": dict(spent),
        "curves": {
            "alone": [[_curve(member) for member in run] for run in alone],
            "chain": [[_curve(member) for member in run] for run in chains],
        },
        "environment": environment(),
    }


def _curve(member: MemberReport) -> list[tuple[float, float | None]]:
    """FLOPs, those of all ancestors included, and the main figure."""
    name = member.main_metric or ""
    return [(member.ancestor_flops + point.flops, point.metrics.get(name)) for point in member.curve]


def show(found: Mapping[str, Any]) -> None:
    """Print the table, last of all."""
    console = plain_console()
    table = Table(title=f"{found['name']}: {found['metric']}, seeds {found['seeds']}", box=box.SIMPLE_HEAD)
    for column in ("member", "params", "lr", "alone", "chain", "better by", "fraction", "predicted", "compute"):
        table.add_column(column, justify="left" if column == "member" else "right", no_wrap=True)
    for row in found["members"]:
        table.add_row(
            row["name"],
            quantity(row["params"]),
            f"{row['lr']:g}",
            f"{row['alone']:.4f} ± {row['alone_deviation']:.4f}",
            f"{row['chain']:.4f} ± {row['chain_deviation']:.4f}",
            f"{row['difference']:+.4f} ± {row['standard_error']:.4f}" + ("" if row["as_good"] else "  missed"),
            f"{row['fraction']:g}",
            f"{row['predicted_fraction']:.2f} ± {row['predicted_deviation']:.2f}",
            f"{row['chain_flops'] / row['alone_flops']:.2f}",
        )
    console.print(table)
    ratio = found["acceleration"]
    missed = f"missed: {', '.join(found['missed'])}; at these budgets {found['acceleration_if_none_were_missed']:.2f}x"
    console.print(
        f"whole family, every member as good as alone: {f'{ratio:.2f}x' if ratio else missed}; predicted "
        f"{found['predicted_acceleration']:.2f}x"
    )
    if (largest := found["acceleration_of_the_largest_alone"]) is not None:
        console.print(f"if only the largest is wanted: {largest:.2f}x")
    if found["floor"]:
        console.print(f"to compare with: {found['floor']}")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Quality against compute, one panel for all members: grey alone, coloured in the chain."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure_, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    colours = plt.get_cmap("viridis")
    count = len(found["members"])
    for way in ("alone", "chain"):
        for seed, run in enumerate(found["curves"][way]):
            for i, curve in enumerate(run):
                colour = "0.65" if way == "alone" else colours(0.1 + 0.75 * i / max(1, count - 1))
                label = found["members"][i]["name"] if way == "chain" and not seed else None
                label = "alone" if way == "alone" and not seed and not i else label
                axes.plot(*zip(*curve, strict=True), color=colour, lw=1.2, alpha=0.8, label=label)
                axes.plot(*curve[-1], marker="o", ms=4, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs, all members before it included")
    axes.set_ylabel(found["metric"])
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic(path) as file:
        figure_.savefig(file, format="svg")
    plt.close(figure_)


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paradigm", help="a file of benchmarks/families, or the path of one")
    parser.add_argument("--family", type=int, choices=tuple(SIZES), default=3, help="number of members")
    parser.add_argument("--preset", choices=("smoke", "cpu", "gpu"), default="smoke")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/acceleration"), help="what a resumed run reads"
    )
    parser.add_argument("--json", type=Path, help="file to write; a picture of the same name goes beside it")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the family")
    arguments = parser.parse_args()
    if arguments.preset == "gpu" and not torch.cuda.is_available():
        print("The preset gpu needs a GPU, and there is none: nothing was measured.")
        return 0
    from compt.cli import parse_options

    try:
        plan = read_plan(arguments.paradigm, arguments.family, arguments.preset, parse_options(arguments.cfg_options))
        found = Bench(plan, arguments.work_dir).run()
    except ComptError as error:
        print(f"acceleration: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        with atomic(arguments.json) as file:
            file.write_text(json.dumps(found, indent=1) + "\n")
        draw(found, arguments.json.with_suffix(".svg"))
    show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
