"""Manifests of finished stages -> what every member cost and reached.

A member of a chain is charged with all members before it, a member trained individually with itself
only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compt.errors import WorkDirError
from compt.files import MANIFEST, STATE, read_json, stage_name

Mode = Literal["chain", "individual"]


@dataclass(frozen=True)
class Point:
    """Held-out figures during training; samples, FLOPs and seconds count from the start of the
    stage.
    """

    iteration: int
    samples: int
    flops: float
    seconds: float
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class MemberResult:
    """One finished stage.

    ``flops`` are the stage's own, with the teacher passes that really ran; ``ancestor_flops`` those
    of the stages before it. ``exact`` tells whether growing kept the function, None where nothing
    was grown. ``metrics`` maps a name to value (None: not finite), chance and higher_is_better.
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
class RunResult:
    """One work folder, labelled 'chain' or 'alone', with a number where there are several.

    ``unfinished`` maps the members without a result to 'started' or 'not started'.
    """

    label: str
    path: str
    mode: Mode
    flops: float
    seconds: float
    members: tuple[MemberResult, ...]
    unfinished: Mapping[str, str]


def read_state(folder: Path) -> dict[str, Any]:
    """Read what a work folder says of its run: mode, members, config.

    Raises:
        WorkDirError: it is no work folder of compt, or damaged.
    """
    path = folder / STATE
    if not path.is_file():
        do = "Name the --work-dir of 'compt train', the folder that holds chain.json."
        if (folder.parent / STATE).is_file():
            do = f"This is one stage; name its work folder: {folder.parent}"
        what = "is not the work folder of a compt run" if folder.exists() else "does not exist"
        raise WorkDirError(f"'{folder.name}' {what}.", where=str(folder), do=do)
    state = read_json(path, "Restore the file from a copy.")
    members = state.get("members")
    sound = isinstance(members, list) and members and all(isinstance(m, str) for m in members)
    if state.get("mode") not in ("chain", "individual") or not sound:
        what = "'chain.json' is damaged: it must have a mode and the names of its members."
        raise WorkDirError(what, where=str(path), do="Restore the file from a copy.")
    return state


def read_run(folder: Path, state: Mapping[str, Any], label: str, notes: list[str]) -> RunResult:
    """Read the manifests of a run's stages; what the figures leave out goes into ``notes``.

    Raises:
        WorkDirError: a manifest is damaged or missing between others.
    """
    members: list[MemberResult] = []
    unfinished: dict[str, str] = {}
    chained = state["mode"] == "chain"
    for index, name in enumerate(state["members"]):
        stage = folder / stage_name(index, name)
        if not (stage / MANIFEST).is_file():
            unfinished[name] = "started" if stage.is_dir() else "not started"
            continue
        if chained and unfinished:
            before = ", ".join(f"'{one}'" for one in unfinished)
            what = f"'{name}' is done, but the members before it have no manifest: {before}."
            raise WorkDirError(
                what, where=str(folder), do="Restore the manifests, or go on with --resume."
            )
        ancestors = sum(m.flops for m in members) if chained else 0.0
        members.append(_member(stage / MANIFEST, name, ancestors))
    config = state.get("config") or {}
    if init := config.get("chain", [{}])[0].get("init"):
        first = state["members"][0]
        notes.append(f"{label}: '{first}' starts from {init}; what that had cost is not counted.")
    totals = sum(m.flops for m in members), sum(m.seconds for m in members)
    return RunResult(label, str(folder), state["mode"], *totals, tuple(members), unfinished)


def _member(path: Path, name: str, ancestors: float) -> MemberResult:
    do = "Restore the file from a copy, or remove it and train the stage again with --resume."
    manifest = read_json(path, do)
    try:
        if manifest["name"] != name:
            raise ValueError(f"it is of member '{manifest['name']}', not '{name}'")
        metrics = {
            key: {**one, "value": _finite(one["value"])} for key, one in manifest["metrics"].items()
        }
        flops, growth = float(manifest["flops"]["total"]), manifest.get("growth")
        return MemberResult(
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
            metrics={
                k: {"chance": None, "higher_is_better": True, **one} for k, one in metrics.items()
            },
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
            {
                k: _finite(v["value"] if isinstance(v, Mapping) else v)
                for k, v in point["metrics"].items()
            },
        )
        for point in sorted(points, key=lambda one: one["iter"])
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
