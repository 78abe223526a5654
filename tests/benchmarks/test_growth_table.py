"""The table of growers and architectures, of one small architecture, and the lines of layouts."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("timm")

import growth_table
from measuring.layout_lines import lines_of

from compt import ConfigError, Layout

ROWS = [
    {
        "architecture": "a",
        "layout": "compt/layouts/a.py:ALayout",
        "own_lines": 12,
        "shared_lines": 0,
        "growers": {
            "lossless": {
                "whole": {
                    "exact": True,
                    "error": 4.4e-16,
                    "reason": "",
                    "counts": {"copied": 1, "expanded": 2, "initialised": 3, "shared": 0},
                    "seconds": 0.25,
                },
                "other": {"exact": False, "error": 0.0123, "reason": "one; two", "seconds": 0.25},
                "deep": {"refused": "a block of | its own"},
            }
        },
    }
]


def test_a_grower_is_measured_by_hop():
    family = growth_table.architectures()["EVA-02 (norms inside attention and MLP)"]
    row = growth_table.measure("EVA-02", family, ["lossless", "stack"])
    assert [hop["exact"] for hop in row["growers"]["lossless"].values()] == [True, False, True]
    assert "attn.norm.weight' normalises over" in row["growers"]["lossless"]["other"]["reason"]
    assert row["growers"]["lossless"]["deep"]["counts"]["initialised"] > 0
    widths = [row["growers"]["stack"][hop]["refused"] for hop in ("whole", "other")]
    assert all("grows depth only" in reason for reason in widths)
    assert row["growers"]["stack"]["deep"]["exact"]
    assert row["layout"] == "compt/layouts/timm.py:EvaLayout"
    assert json.loads(json.dumps(row)) == row


def test_tables_say_what_is_exact_and_why_the_rest_is_not():
    tables = growth_table.tables(ROWS)
    assert "| a | **4e-16** · 0.01 · - |" in tables["exact"]
    cells = "| a | [ALayout](../compt/layouts/a.py) | 12 + 0 | 1 / 2 / 3 | - | 500 |"
    assert cells + " one; a block of \\| its own |" in tables["growth"]


def test_results_are_read_again_and_written_between_markers(tmp_path, monkeypatch, capsys):
    page, results = tmp_path / "page.md", tmp_path / "growth.json"
    page.write_text("<!-- exact -->\nold\n<!-- end -->\nkept\n<!-- growth -->\n<!-- end -->\n")
    results.write_text(json.dumps(ROWS))
    arguments = ["growth_table", "--read", str(results), "--write", str(page)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert growth_table.main() == 0
    text = page.read_text()
    assert "old" not in text
    assert "kept" in text
    assert "**4e-16**" in text
    assert "ALayout" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["growth_table", "--architectures", "BRET"])
    assert growth_table.main() == 2
    assert "There is no architecture 'BRET'" in capsys.readouterr().err


def test_names_that_are_not_there_are_refused():
    assert growth_table.chosen(["a", "b"], [], "grower") == ["a", "b"]
    with pytest.raises(ConfigError, match="no grower 'c'"):
        growth_table.chosen(["a", "b"], ["c"], "grower")


# What is counted below, by hand

SHARED = {
    "a": "b",
}
ONLY = {"c": "d"}  # of one


class First(Layout):
    """A docstring of

    several lines.
    """

    patterns = {
        **SHARED,
        **ONLY,
    }

    def sizes(self, module):
        """Another."""
        # and a comment
        return {}


class Second(Layout):
    patterns = SHARED


def test_lines_are_those_of_code():
    first, second = lines_of(First), lines_of(Second)
    assert (first.own, first.shared) == (1 + 4 + 2 + 1, 3)
    assert (second.own, second.shared) == (2, 3)
