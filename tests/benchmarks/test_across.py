"""A student with a teacher of another architecture is compared with itself alone, seed by seed."""

from __future__ import annotations

import json
import math
import sys

import across
import pytest

from tests.conftest import TOY, config_file


def compared(**changes):
    values = dict(
        config="c",
        student="b",
        metric="val/loss",
        higher_is_better=False,
        alone=(2.0, 3.0, 4.0),
        taught=(1.5, 2.0, 3.5),
        flops=1.2,
    )
    return across.Compared(**{**values, **changes})


def test_gains_are_paired_and_point_up():
    row = compared()
    assert row.gains == [0.5, 1.0, 0.5]
    assert row.gain == pytest.approx(2 / 3)
    # t of 2 degrees of freedom is 4.3027, the standard error sqrt(1 / 12) / sqrt(3)
    assert row.half_width == pytest.approx(4.3027 / 6, rel=1e-4)
    assert compared(higher_is_better=True).gain == pytest.approx(-2 / 3)
    assert math.isnan(compared(alone=(1.0,), taught=(2.0,)).half_width)


def test_the_command_trains_each_student_twice(tmp_path, monkeypatch, capsys):
    toy = {**TOY, "grower": dict(type="scratch"), "individual": dict(budget="chain")}
    toy["chain"] = [{**member, "iters": 2} for member in TOY["chain"][:2]]
    path, out = config_file(tmp_path, toy), tmp_path / "across.json"
    arguments = [str(path), "--seeds", "1", "--work-dir", str(tmp_path), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmarks/across.py", *arguments])
    assert across.main() == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["student"], row["metric"], row["half_width"]) == ("b", "val/accuracy", None)
    assert row["flops"] > 1
    assert row["gain"] == pytest.approx(row["taught"][0] - row["alone"][0])
    assert "toy: b" in capsys.readouterr().out
