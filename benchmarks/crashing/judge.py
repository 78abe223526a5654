"""Compare what a run has left with what an uninterrupted one has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compt.files import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    EXPORT,
    GROWTH,
    MANIFEST,
    OF_ONE_RUN,
    STATE,
    STATUS,
)
from compt.report.watch.inspection import inspect

TIMED = OF_ONE_RUN - {"mode"}
"""Entries of records that say how long something took, or on what."""
TIMED_SCALARS = frozenset(("time", "data_time", "memory", "eta"))
LOGS = re.compile(r"(vis_data/|\.log$|events\.out|status\.json)")
TEXTS = frozenset((CONFIG, CARD, STATUS, "report.json"))
"""What people read of a run, and nothing else does."""


def differences(run: Path, reference: Path, *, without: frozenset[str] = frozenset()) -> list[str]:
    """Return how the results of a run differ from an uninterrupted one's.

    Weights and all files of exports are compared byte by byte, records but for times, and the
    logged scalars step by step: what was logged twice has to be the same twice.

    Args:
        run: the work folder.
        reference: the uninterrupted run's.
        without: stages whose logs are not compared.
    """
    return [
        *_differing_weights(run, reference),
        *_differing_records(run, reference),
        *_differing_logs(run, reference, without),
        *_leftovers(run),
    ]


def _differing_weights(run: Path, reference: Path) -> Iterator[str]:
    names = {*_compared(run), *_compared(reference)}
    for name in sorted(names):
        one, other = run / name, reference / name
        if not (one.is_file() and other.is_file()):
            yield f"{name} is in one of them only"
        elif one.read_bytes() != other.read_bytes():
            yield f"{name} has other bytes"


def _compared(folder: Path) -> Iterator[str]:
    for path in folder.glob("*_*/**/*"):
        is_text = path.name == CARD
        is_weights = path.suffix == ".safetensors" or EXPORT in path.parts
        if path.is_file() and is_weights and not is_text and CHECKPOINTS not in path.parts:
            yield path.relative_to(folder).as_posix()


def _differing_records(run: Path, reference: Path) -> Iterator[str]:
    for file in sorted(reference.glob(f"*_*/{MANIFEST}")) + sorted(reference.glob(f"*_*/{GROWTH}")):
        name = file.relative_to(reference)
        if not (run / name).is_file():
            yield f"{name} is missing"
        elif not _is_json(run / name):
            yield f"{name} cannot be read"
        elif _untimed(_read(run / name)) != _untimed(_read(file)):
            yield f"{name} says something else"
    own, other = _read(run / STATE), _read(reference / STATE)
    for key in ("mode", "members", "config", "data"):
        if _settled(own[key]) != _settled(other[key]):
            yield f"{STATE} says something else of {key}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _is_json(path: Path) -> bool:
    try:
        _read(path)
    except ValueError:
        return False
    return True


def _settled(value: Any) -> Any:
    """Return a config without what a resumed run may change."""
    if isinstance(value, Mapping):
        return {key: _settled(inner) for key, inner in value.items() if key != "num_workers"}
    return value


def _untimed(value: Any) -> Any:
    """Return a record without what no two runs have alike."""
    if isinstance(value, Mapping):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMED}
    if isinstance(value, list):
        return [_untimed(inner) for inner in value]
    return value


def _differing_logs(run: Path, reference: Path, without: frozenset[str]) -> Iterator[str]:
    for stage in sorted(path.parent.name for path in reference.glob(f"*_*/{MANIFEST}")):
        if stage in without:
            continue
        own, wanted = scalars(run / stage), scalars(reference / stage)
        for step, values in wanted.items():
            if step not in own:
                yield f"{stage}: iteration {step[1]} is not in its log ({step[0]})"
            elif any(logged != values[0] for logged in own[step]):
                yield f"{stage}: iteration {step[1]} has another loss in its log ({step[0]})"


def scalars(stage: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return what a stage has logged, by kind and iteration, all times that it was."""
    logged: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for file in sorted(stage.glob("*/vis_data/scalars.json")):
        for line in file.read_text(errors="replace").splitlines():
            try:
                content = json.loads(line)
            except ValueError:  # half a line, of a process that was killed
                continue
            values = {name: value for name, value in content.items() if name not in TIMED_SCALARS}
            kind = "train" if "loss" in values else "held out"
            logged.setdefault((kind, values.get("step", -1)), []).append(values)
    return logged


def _leftovers(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*.tmp")):
        yield f"{path.relative_to(run)} is left over"
    for path in sorted(run.glob(f"*_*/{CHECKPOINTS}")):
        yield f"{path.relative_to(run)} is left over"
    state = _read(run / STATUS)["state"]
    if state == "running":  # what could no longer be written, compt status knows all the same
        state = inspect(run).life
    if state != "finished":
        yield f"{STATUS} says {state}"
