"""Manifests of finished stages -> a report: cost and figures of every member, and what a chain saves.

A member of a chain is charged with all members before it, a member trained individually with itself only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compt.errors import ConfigError, WorkDirError

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
REPORT = "report.json"
PICTURES = {f"{stem}.{kind}" for stem in ("quality_vs_compute", "acceleration") for kind in ("png", "svg")}
Mode = Literal["chain", "individual"]


@dataclass(frozen=True)
class Point:
    """Held-out figures during training; samples, FLOPs and seconds count from the start of the stage."""

    iteration: int
    samples: int
    flops: float
    seconds: float
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class MemberReport:
    """One finished stage.

    ``flops`` are the stage's own, with the teacher passes that really ran; ``ancestor_flops`` those of the
    stages before it. ``exact`` tells whether growing kept the function, None where nothing was grown.
    ``metrics`` maps a name to value (None: not finite), chance and higher_is_better.
    """

    name: str
    params: int
    samples: int
    flops: float
    ancestor_flops: float
    cumulative_flops: float
    seconds: float
    grower: str | None
    exact: bool | None
    transfer: str | None
    metrics: Mapping[str, Mapping[str, Any]]
    main_metric: str | None
    curve: tuple[Point, ...]
    environment: Mapping[str, Any]

    @property
    def main(self) -> Mapping[str, Any] | None:
        """The main figure, None where nothing finite was measured."""
        metric = self.metrics.get(self.main_metric or "")
        return metric if metric and metric["value"] is not None else None


@dataclass(frozen=True)
class RunReport:
    """One work folder, labelled 'chain' or 'alone', with a number where there are several.

    ``unfinished`` maps the members without a result to 'started' or 'not started'.
    """

    label: str
    path: str
    mode: Mode
    flops: float
    seconds: float
    members: tuple[MemberReport, ...]
    unfinished: Mapping[str, str]


@dataclass(frozen=True)
class MemberComparison:
    """One member of a chain against the same member trained individually.

    ``status`` tells whether the chain reached the individual member's final main figure. The individual
    member is charged its whole budget (``individual_first_flops``: when it first measured that figure
    itself), the chain's stage the FLOPs to its first measurement at or beyond it. An acceleration is None
    unless reached, or where no FLOPs were needed.
    """

    name: str
    status: Literal["reached", "missed", "unfinished", "incomparable"]
    reason: str = ""
    chance: float | None = None
    individual: float | None = None
    chain: float | None = None
    difference: float | None = None
    verdict: Literal["better", "equal", "worse"] | None = None
    individual_flops: float | None = None
    individual_first_flops: float | None = None
    reached_flops: float | None = None
    ancestor_flops: float | None = None
    acceleration: float | None = None
    acceleration_with_ancestors: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A chain against individual training; the accelerations are None unless every member reached.

    ``reached_flops`` charges every stage only until it reached, ``chain_flops`` (and the full acceleration)
    to its end, as it really ran before the next stage inherited from it.
    """

    chain: str
    individual: str
    members: tuple[MemberComparison, ...]
    missed: tuple[str, ...]
    individual_flops: float
    chain_flops: float
    reached_flops: float | None
    acceleration: float | None
    acceleration_full: float | None


@dataclass(frozen=True)
class Report:
    """All runs, and one comparison a chain where exactly one of them is individual."""

    runs: tuple[RunReport, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return json.loads(json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False))


def report(work_dirs: Sequence[Path], *, out: Path | None = None) -> Report:
    """Read the manifests of one or several work folders; also write the report into ``out`` if given.

    Raises:
        WorkDirError: a folder is not compt's, or a file in it is damaged.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in work_dirs))
    if not folders:
        raise ConfigError("There is no work folder to report on.", do="Name at least one.")
    notes: list[str] = []
    states = [_read_state(folder) for folder in folders]
    words = ["chain" if state["mode"] == "chain" else "alone" for state in states]
    labels = [f"{w} {words[: i + 1].count(w)}" if words.count(w) > 1 else w for i, w in enumerate(words)]
    runs = tuple(_run(*one, notes) for one in zip(folders, states, labels, strict=True))
    individual = [run for run in runs if run.mode == "individual"]
    comparisons: tuple[Comparison, ...] = ()
    if len(individual) == 1:
        comparisons = tuple(_compare(run, individual[0]) for run in runs if run.mode == "chain")
    elif len(individual) > 1 and len(runs) > len(individual):
        notes.append("Several individual runs: give exactly one of them to compare a chain with it.")
    result = Report(runs, comparisons, tuple(notes))
    if out is not None:
        write(result, out)
    return result


def _read(path: Path, do: str) -> dict[str, Any]:
    """Read one of the run's JSON files."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkDirError(f"Cannot read '{path.name}': {error}.", where=str(path), do=do) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else "no format at all"
        what = f"'{path.name}' is of format {found}; this compt reads {FORMAT}."
        raise WorkDirError(what, where=str(path), do=do)
    return content


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / "chain.json"
    if not path.is_file():
        do = "Name the --work-dir of 'compt train', the folder that holds chain.json."
        if (folder.parent / "chain.json").is_file():
            do = f"This is one stage; name its work folder: {folder.parent}"
        what = "is not the work folder of a compt run" if folder.exists() else "does not exist"
        raise WorkDirError(f"'{folder.name}' {what}.", where=str(folder), do=do)
    state = _read(path, "Restore the file from a copy.")
    members = state.get("members")
    sound = isinstance(members, list) and members and all(isinstance(m, str) for m in members)
    if state.get("mode") not in ("chain", "individual") or not sound:
        what = "'chain.json' is damaged: it must have a mode and the names of its members."
        raise WorkDirError(what, where=str(path), do="Restore the file from a copy.")
    return state


def _run(folder: Path, state: Mapping[str, Any], label: str, notes: list[str]) -> RunReport:
    members: list[MemberReport] = []
    unfinished: dict[str, str] = {}
    chained = state["mode"] == "chain"
    for index, name in enumerate(state["members"]):
        stage = folder / f"{index + 1:02d}_{name}"
        if not (stage / "manifest.json").is_file():
            unfinished[name] = "started" if stage.is_dir() else "not started"
            continue
        if chained and unfinished:
            before = ", ".join(f"'{one}'" for one in unfinished)
            what = f"'{name}' is done, but the members before it have no manifest: {before}."
            raise WorkDirError(what, where=str(folder), do="Restore the manifests, or go on with --resume.")
        ancestors = sum(m.flops for m in members) if chained else 0.0
        members.append(_member(stage / "manifest.json", name, ancestors))
    config = state.get("config") or {}
    if init := config.get("chain", [{}])[0].get("init"):
        first = state["members"][0]
        notes.append(f"{label}: '{first}' starts from {init}; what that had cost is not counted.")
    totals = sum(m.flops for m in members), sum(m.seconds for m in members)
    return RunReport(label, str(folder), state["mode"], *totals, tuple(members), unfinished)


def _member(path: Path, name: str, ancestors: float) -> MemberReport:
    do = "Restore the file from a copy, or remove it and train the stage again with --resume."
    manifest = _read(path, do)
    try:
        if manifest["name"] != name:
            raise ValueError(f"it is of member '{manifest['name']}', not '{name}'")
        metrics = {key: {**one, "value": _finite(one["value"])} for key, one in manifest["metrics"].items()}
        flops, growth = float(manifest["flops"]["total"]), manifest.get("growth")
        return MemberReport(
            name=name,
            params=int(manifest["params"]),
            samples=int(manifest["samples"]),
            flops=flops,
            ancestor_flops=ancestors,
            cumulative_flops=ancestors + flops,
            seconds=float(manifest["seconds"]),
            grower=manifest.get("grower") if growth else None,
            exact=bool(growth["function_preserving"]) if growth else None,
            transfer=manifest.get("transfer"),
            metrics={k: {"chance": None, "higher_is_better": True, **one} for k, one in metrics.items()},
            main_metric=manifest.get("main_metric") or next(iter(metrics), None),
            curve=_curve(manifest, flops),
            environment=dict(manifest.get("environment") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WorkDirError(f"The manifest is damaged: {fault}.", where=str(path), do=do) from error


def _curve(manifest: Mapping[str, Any], flops: float) -> tuple[Point, ...]:
    """The measured points in order; what was measured only at the end is a curve of one point."""
    end = {**manifest, "iter": manifest["iters"], "flops": flops}
    points = manifest.get("curve") or ([end] if manifest["metrics"] else [])
    return tuple(
        Point(
            int(point["iter"]),
            int(point["samples"]),
            float(point["flops"]),
            float(point["seconds"]),
            {k: _finite(v["value"] if isinstance(v, Mapping) else v) for k, v in point["metrics"].items()},
        )
        for point in sorted(points, key=lambda one: one["iter"])
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _compare(chain: RunReport, individual: RunReport) -> Comparison:
    names = dict.fromkeys([*(m.name for m in individual.members), *individual.unfinished])
    names |= dict.fromkeys([*(m.name for m in chain.members), *chain.unfinished])
    members = tuple(_compare_member(name, chain, individual) for name in names)
    costs = [m.reached_flops for m in members if m.reached_flops is not None]
    everyone = len(costs) == len(members)
    reached = sum(costs) if everyone else None
    return Comparison(
        chain=chain.label,
        individual=individual.label,
        members=members,
        missed=tuple(m.name for m in members if m.status == "missed"),
        individual_flops=individual.flops,
        chain_flops=chain.flops,
        reached_flops=reached,
        acceleration=_ratio(individual.flops, reached),
        acceleration_full=_ratio(individual.flops, chain.flops if everyone else None),
    )


def _compare_member(name: str, chain: RunReport, individual: RunReport) -> MemberComparison:
    for run in (individual, chain):
        if name in run.unfinished:
            return MemberComparison(name, "unfinished", f"not finished in '{run.label}'")
    alone, student = _find(individual, name), _find(chain, name)
    if alone is None or student is None:
        only = individual.label if student is None else chain.label
        return MemberComparison(name, "incomparable", f"only in '{only}'")
    goal, final = alone.main, student.main
    if goal is None or final is None or alone.main_metric is None:
        return MemberComparison(name, "incomparable", "without a finite main figure")
    if alone.main_metric != student.main_metric:
        reason = f"main figures {alone.main_metric} and {student.main_metric}"
        return MemberComparison(name, "incomparable", reason)
    if alone.params != student.params:
        return MemberComparison(name, "incomparable", f"{alone.params:,} and {student.params:,} parameters")
    higher = bool(goal["higher_is_better"])
    reached = _first(student.curve, alone.main_metric, goal["value"], higher)
    difference = final["value"] - goal["value"]
    gain = difference if higher else -difference
    total = None if reached is None else reached + student.ancestor_flops
    return MemberComparison(
        name=name,
        status="missed" if reached is None else "reached",
        chance=goal["chance"],
        individual=goal["value"],
        chain=final["value"],
        difference=difference,
        verdict="better" if gain > 0 else "worse" if gain < 0 else "equal",
        individual_flops=alone.flops,
        individual_first_flops=_first(alone.curve, alone.main_metric, goal["value"], higher),
        reached_flops=reached,
        ancestor_flops=student.ancestor_flops,
        acceleration=_ratio(alone.flops, reached),
        acceleration_with_ancestors=_ratio(alone.flops, total),
    )


def _find(run: RunReport, name: str) -> MemberReport | None:
    return next((member for member in run.members if member.name == name), None)


def _first(curve: Iterable[Point], metric: str, goal: float, higher: bool) -> float | None:
    """FLOPs of the first measured point at or beyond the goal; nothing is interpolated."""
    for point in curve:
        value = point.metrics.get(metric)
        if value is not None and (value >= goal if higher else value <= goal):
            return point.flops
    return None


def _ratio(numerator: float, denominator: float | None) -> float | None:
    return numerator / denominator if denominator else None


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json and the pictures into a folder, each file atomically; return their paths.

    Raises:
        WorkDirError: the folder cannot be written.
    """
    from compt.checkpoint import atomic
    from compt.pictures import pictures

    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    files = {REPORT: text.encode(), **pictures(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / REPORT).is_file():  # pictures of an earlier report would contradict this one
            for name in PICTURES - files.keys():
                (folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as file:
                file.write_bytes(content)
    except OSError as error:
        what = f"The report cannot be written: {error.strerror or error}."
        raise WorkDirError(what, where=str(folder), do="Choose another folder with --out.") from error
    return [folder / name for name in files]


def as_table(report: Report, *, width: int = 100) -> Table:
    """One row a member, with as many figures as fit; :func:`compt.pictures.tables` has the rest."""
    from compt.pictures import tables

    return tables(report, width)[0]


def report_command(work_dirs: list[str], json: bool, out: str | None) -> int:
    """Report on work folders: tables, or JSON, on stdout; files into ``out`` or the first folder."""
    from compt.pictures import show

    folders = [Path(folder) for folder in work_dirs]
    result = report(folders)
    paths = write(result, Path(out) if out is not None else folders[0])
    show(result, paths, as_json=json)
    return 0
