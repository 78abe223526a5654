"""The page of a report, read as HTML."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("bokeh")

from compt.report.build import report
from compt.report.html.page import html_page
from tests.report.html.pages import Page, grown, page_of, pair
from tests.report.test_losses import losses, write_log
from tests.report.work_folders import CHAIN, change, make_run


def test_it_says_what_the_runs_were_and_reached(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    manifest = folders[0] / "02_small" / "manifest.json"
    grown(manifest, {"a": "copied", "b": "expanded", "c": "initialised"}, dropped=["gone"])
    page = page_of(folders)
    for words in (
        "acceleration of the family 2.50x as it ran",
        "2 of 2 members trained, 160 FLOP",
        "grown: lossless exact teacher: feature_mse",
        "tiny → small",
        "keeps the function (measured error 1.0e-07)",
        "Not used of the source: gone.",
        "1 new not of the source",
        "Nothing was left out or replaced",
        "Energy is not known: no meter was found.",
        str(folders[0]),
        '"name": "tiny"',
    ):
        assert words in page.text, words
    assert page.attributes("id").count("losses") == 1


def test_it_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    page = page_of(pair(tmp_path))
    for name in ("src", "href", "srcset", "action"):
        links = page.attributes(name)
        assert all(link.startswith(("#", "data:,")) for link in links), links
    assert "Bokeh" in "".join(page.scripts)
    (policy,) = (text for text in page.attributes("content") if "default-src" in text)
    assert policy.startswith("default-src 'none';") and "http" not in policy
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = {link[1:] for link in page.attributes("href") if link.startswith("#")}
    assert targets <= set(ids)


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    assert html_page(report(folders)) == html_page(report(folders))


def test_text_of_others_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = make_run(tmp_path / "<b>'c\"&amp;", "chain", {"a": [(1, 0.5)]}, name=f"val/{evil}")
    state = json.loads((folder / "chain.json").read_text())
    state["members"], state["config"] = ["m"], {"key": f"</pre>{evil}"}
    (folder / "chain.json").write_text(json.dumps(state))
    (folder / "01_a").rename(folder / "01_m")
    manifest = folder / "01_m" / "manifest.json"
    change(manifest, name="m", environment={"device": evil}, paradigm=evil, stopped=evil)
    grown(manifest, {f"w{evil}": f"x{evil}"}, grower=evil, reason=evil, function_preserving=False)
    text = html_page(report([folder]))
    assert evil not in text
    page = Page(text)
    assert page.text.count(evil) >= 6
    assert "<b>'c\"&amp;" in page.text
    # Bokeh takes what is between dollars for formulas, in all other text.
    assert '"PlainText"' in page.item("quality-1")


def test_a_metric_may_be_called_a_script(tmp_path: Path) -> None:
    name = "val/</script><script>alert(1)"
    page = page_of([make_run(tmp_path / "c", "chain", {"m": [(1, 0.5)]}, name=name)])
    assert "</script><script>alert(1)" in page.text


@pytest.mark.parametrize("done", [0, 1])
def test_an_unfinished_chain(tmp_path: Path, done: int) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN, done=done)
    running = folder / ("02_small" if done else "01_tiny")
    write_log(running, "20260101_000000", losses([2, 4]))
    state = json.loads((folder / "chain.json").read_text())
    stages = [{"name": name, "iters": 8, "batch_size": 4} for name in CHAIN]
    (folder / "chain.json").write_text(json.dumps({**state, "stages": stages}))
    page = page_of([folder])
    assert f"{done} of 2 members trained" in page.text
    assert "state started samples 16 of 32" in page.text
    assert ("losses" in page.attributes("id")) and ("costs" in page.attributes("id")) == bool(done)


def test_nothing_measured_and_nothing_logged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN)
    for stage in ("01_tiny", "02_small"):
        change(folder / stage / "manifest.json", metrics={}, curve=[], main_metric=None)
    page = page_of([folder])
    assert not {"plots", "gains", "held-out"} & set(page.attributes("id"))
    assert "Bokeh" not in "".join(page.scripts[1:2])
    assert len(html_page(report([folder]))) < 100_000


def test_lower_is_better_and_chance_may_be_unknown(tmp_path: Path) -> None:
    curves = {"tiny": [(10, 4.0), (20, 3.5)], "small": [(20, 3.25)]}
    folder = make_run(tmp_path / "c", "chain", curves, higher=False, name="val/ppl")
    page = page_of([folder])
    assert "val/ppl, held out, lower is better" in page.item("quality-1")
    assert "chance" not in page.item("quality-1")
    assert "-0.25" in page.text


def test_every_main_metric_has_a_plot(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    change(folders[1] / "01_tiny" / "manifest.json", main_metric="val/loss")
    page = page_of(folders)
    assert {"quality-1", "quality-2"} <= set(page.attributes("id"))


def test_a_large_family_stays_small(tmp_path: Path) -> None:
    """Seven members of 2,000 tensors each, in two chains, with names as long as they come."""
    members = {f"{'m' * 58}-{i}": [(10 * (i + 1), 0.1 * i)] for i in range(7)}
    statuses = ("copied", "expanded", "initialised")
    folders = []
    for run in ("c", "d"):
        folder = make_run(tmp_path / run, "chain", members)
        for index, name in enumerate(members):
            stage = folder / f"{index + 1:02d}_{name}"
            tower = "visual.transformer.resblocks.{}.attention.in_projection.weight"
            params = {tower.format(i): statuses[i % 3] for i in range(2000)}
            if index:
                grown(stage / "manifest.json", params)
        write_log(folder / f"01_{next(iter(members))}", "1", losses(range(1, 1000)))
        folders.append(folder)
    one, two = (html_page(report(folders[:count])) for count in (1, 2))
    assert len(one.encode()) < 5e6
    assert len(two.encode()) < 5e6
    assert "2,000 tensors of" in one and "not listed" not in one
    listed, left_out = re.search(
        r">([\d,]+) tensors of \S+ and ([\d,]+) more, not listed", two
    ).groups()
    assert int(listed.replace(",", "")) + int(left_out.replace(",", "")) == 2000
    assert (
        f"{int(left_out.replace(',', '')):,} more tensors are in the stage's manifest.json" in two
    )
    assert "logged losses are drawn, with the extremes of all" in one
