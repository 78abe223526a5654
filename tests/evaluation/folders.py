"""Work folders that nothing was trained for."""

from __future__ import annotations

from pathlib import Path

from compt.files import digests, stage_name
from compt.report.state import ChainState
from tests.report.records import stage_record

WEIGHTS = "weights.bin"


def write_run(folder: Path, **members: str | None) -> Path:
    """Write a work folder whose members have these weights, None for one that is not finished."""
    folder.mkdir()
    ChainState("chain", tuple(members), {}).write(folder / "chain.json")
    for index, (member, weights) in enumerate(members.items()):
        if weights is not None:
            finish(folder / stage_name(index, member), member, weights)
    return folder


def finish(stage: Path, member: str, weights: str) -> None:
    """Write the export and the record of a finished stage."""
    (stage / "export").mkdir(parents=True, exist_ok=True)
    (stage / "export" / WEIGHTS).write_text(weights)
    files = digests(stage, ["export"])
    stage_record(member, [(1, 1.0, 1.0, 0.5)], files=files).write(stage / "manifest.json")
