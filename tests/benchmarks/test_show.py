"""How results are written and put into documents."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from measuring.show import mean, signed, times, write
from measuring.tables import put_between

from compt.errors import ConfigError
from tests.environments import ROOT


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    """The bound of one seed, and a rate that diverged; NaN is not JSON."""
    content = {0.5: [math.nan, (1.5, -math.inf)], "a": {"b": None, "c": True}}
    write(content, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "0.5": [None, [1.5, None]],
        "a": {"b": None, "c": True},
    }


def test_what_is_no_number_is_a_dash_in_words() -> None:
    assert [signed(number) for number in (0.25, -1.0, None, -math.inf, math.nan)] == [
        "+0.2500",
        "-1.0000",
        "-",
        "-",
        "-",
    ]
    assert [times(ratio) for ratio in (1.254, 0.0, None, math.inf)] == ["1.25x", "-", "-", "-"]
    assert mean([1.0, 2.0]) == 1.5 and math.isnan(mean([1.0, None]))


def test_text_is_put_between_its_own_markers(tmp_path: Path) -> None:
    """Backslashes and all; other parts stay."""
    document = tmp_path / "x.md"
    document.write_text("<!-- a -->\n1\n<!-- end -->\n<!-- b -->\n2\n<!-- end -->\n")
    put_between(document, "b", r"\1 new")
    assert (
        document.read_text()
        == "<!-- a -->\n1\n<!-- end -->\n<!-- b -->\n\n\\1 new\n\n<!-- end -->\n"
    )
    with pytest.raises(ConfigError, match="Add <!-- c -->"):
        put_between(document, "c", "")


def test_what_stopping_and_padding_scored_follows_from_the_results_that_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page of earlier results computes the scores that it, and the README, tell."""
    page = ROOT / "docs" / "study_short.md"
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile(block, page, "exec"), {})
    scores = dict(re.findall(r"(\S+): stop at \S+, (\S+)x", capsys.readouterr().out))
    scores_told = {
        "clip-3": 6.2,
        "clip-4": 8.3,
        "clip-7": 13.1,
        "causal_lm-3": 3.7,
        "causal_lm-7": 6.6,
        "mae-3": 5.6,
        "mae-4": 7.9,
    }
    rounded = {name: float(scores[name]) for name in scores_told}
    assert rounded == pytest.approx(scores_told, abs=0.055)
    assert all(f"{score:g}x" in page.read_text() for score in scores_told.values())
    ends = f"{min(map(float, scores.values())):.1f}x to {max(map(float, scores.values())):.0f}x"
    assert ends == "3.7x to 13x" and ends in (ROOT / "README.md").read_text()
