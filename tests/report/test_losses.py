"""Losses read from logs that a stage left."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compt.report.losses import LossPoint, read_losses, thinned


def write_log(stage: Path, name: str, lines: Iterable[dict[str, Any] | str]) -> None:
    log = stage / name / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    log.write_text("\n".join(texts) + "\n")


def losses(iterations: Iterable[int], value: float = 1.0) -> list[dict[str, Any]]:
    return [{"loss": value, "iter": i, "step": i} for i in iterations]


def test_a_resumed_stage_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_1", losses([1, 2, 3, 4], 9.0))
    write_log(tmp_path, "20260102_1", losses([3, 4, 5], 2.0))
    points = read_losses(tmp_path).points
    assert [(p.iteration, p.task) for p in points] == [(1, 9), (2, 9), (3, 2), (4, 2), (5, 2)]


def test_what_the_teacher_adds_is_apart(tmp_path: Path) -> None:
    line = {"loss": 4.0, "task/a": 3.0, "transfer/b": 0.75, "transfer/c": 0.25, "iter": 8}
    write_log(tmp_path, "1", [line])
    assert read_losses(tmp_path).points == (LossPoint(8, 3.0, 1.0),)


def test_what_the_teacher_added_earlier_is_not_taken_from_the_task(tmp_path: Path) -> None:
    """Behind ``until`` mmengine logs a term's last mean on and on, with ``every`` an older one."""
    line = {"loss": 3.5, "task/a": 2.0, "task/b": 1.0, "transfer/c": 2.0, "iter": 8}
    write_log(tmp_path, "1", [line, {**line, "loss": 3.0, "iter": 9}])
    assert read_losses(tmp_path).points == (LossPoint(8, 3.0, 0.5), LossPoint(9, 3.0, 0.0))


def test_lines_that_are_no_losses_are_skipped(tmp_path: Path) -> None:
    broken = '{"loss": 1.0, "it'
    write_log(tmp_path, "1", [{"val/top1": 0.5, "step": 4}, *losses([5]), broken])
    assert [p.iteration for p in read_losses(tmp_path).points] == [5]
    assert read_losses(tmp_path / "nowhere").points == ()


def test_losses_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    write_log(tmp_path, "1", [*losses([1]), *losses([2], float("nan")), *losses([3])])
    result = read_losses(tmp_path)
    assert [p.iteration for p in result.points] == [1, 3]
    assert (result.num_logged, result.num_not_finite) == (2, 1)


def test_a_spike_survives_thinning(tmp_path: Path) -> None:
    values = [LossPoint(i, 50.0 if i == 777 else 1 + 1 / (i + 1)) for i in range(5000)]
    few = thinned(values, 100)
    assert len(few) <= 100
    assert max(few, key=lambda p: p.task).iteration == 777
    assert (few[0].iteration, few[-1].iteration) == (0, 4999)
    assert [p.iteration for p in few] == sorted({p.iteration for p in few})
    assert thinned(values[:100], 100) == tuple(values[:100])
