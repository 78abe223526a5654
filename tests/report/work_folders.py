"""Work folders written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# FLOPs and val/top1 at each measurement; the last entry is the end of the stage.
CHAIN = {"tiny": [(50, 0.1), (100, 0.3)], "small": [(20, 0.35), (40, 0.5), (60, 0.45)]}
ALONE = {"tiny": [(50, 0.2), (100, 0.3)], "small": [(150, 0.3), (300, 0.4)]}


def metric(value: float, higher: bool, chance: float | None) -> dict[str, Any]:
    return {"value": value, "chance": chance, "higher_is_better": higher}


def make_run(
    folder: Path,
    mode: str,
    curves: dict,
    *,
    done: int = 9,
    higher: bool = True,
    name: str = "val/top1",
) -> Path:
    """Write a work folder; a member's parameters are ten times its name's length."""
    folder.mkdir()
    chance = 0.1 if higher else None
    config = {"chain": [{"name": member} for member in curves]}
    state = {"format": 1, "mode": mode, "config": config, "members": list(curves)}
    (folder / "chain.json").write_text(json.dumps(state))
    for index, (member, points) in enumerate(list(curves.items())[:done]):
        curve = [
            {
                "iter": i + 1,
                "samples": 8 * (i + 1),
                "flops": flops,
                "seconds": 2.0 * i,
                "metrics": {
                    name: metric(value, higher, chance),
                    "val/loss": metric(1 - value, False, None),
                },
            }
            for i, (flops, value) in enumerate(points)
        ]
        grown = mode == "chain" and index > 0
        stage = folder / f"{index + 1:02d}_{member}"
        stage.mkdir()
        manifest = {
            "format": 1,
            "name": member,
            "index": index,
            "mode": mode,
            "paradigm": "toy",
            "grower": "lossless" if grown else None,
            "transfer": "feature_mse" if grown else None,
            "params": 10 * len(member),
            "samples": curve[-1]["samples"],
            "iters": len(curve),
            "batch_size": 8,
            "flops": {"student_per_sample": 1, "teacher_per_sample": 0, "total": points[-1][0]},
            "seconds": 61.2,
            "metrics": curve[-1]["metrics"],
            "main_metric": name,
            "curve": curve,
            "growth": {"grower": "lossless", "function_preserving": True, "reason": ""}
            if grown
            else None,
            "environment": {"device": "cpu"},
        }
        (stage / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change(manifest: Path, **values: Any) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **values}))
