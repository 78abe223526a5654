"""A report opened in headless Chromium, in both themes, at the width of a screen and of a phone.

Needs node, Chromium (Debian's package) and playwright-core, which node finds beside this file, in
NODE_PATH, or in the folder that COMPT_PLAYWRIGHT names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bokeh")

from compt.report.build import report, write
from tests.report.html.pages import grown, pair
from tests.report.work_folders import change

SCRIPT = Path(__file__).with_name("browser.js")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.slow


def _playwright(node: str) -> str:
    folder = os.environ.get("COMPT_PLAYWRIGHT")
    name = str(Path(folder) / "node_modules" / "playwright-core") if folder else "playwright-core"
    command = (node, "-p", f"require.resolve({name!r})")
    found = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("playwright-core is not installed: npm install playwright-core")
    return found.stdout.strip()


def _browser() -> tuple[str, str, str]:
    """Return node, playwright-core and Chromium."""
    node = shutil.which("node")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if node is None or chromium is None:
        pytest.skip("node or chromium is not installed")
    return node, _playwright(node), chromium


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the page of a chain and its members alone did, at each look."""
    node, playwright, chromium = _browser()
    folder = tmp_path_factory.mktemp("page")
    folders = pair(folder)
    manifest = folders[0] / "02_small" / "manifest.json"
    grown(manifest, {f"visual.blocks.{i}.weight{EVIL}": "copied" for i in range(300)})
    change(folders[0] / "01_tiny" / "manifest.json", stopped=EVIL, environment={"device": EVIL})
    # Between dollars stands what Bokeh would take for a formula.
    names = {"val/top1": f"val/$$x$$ {EVIL}"}
    for path in folder.glob("*/*/manifest.json"):
        path.write_text(path.read_text().replace("val/top1", names["val/top1"]))
    write(report(folders), folder)
    page = folder / "report.html"
    command = (node, str(SCRIPT), playwright, chromium, str(page), str(folder))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_opens_without_errors_and_asks_for_nothing(looks: list[dict[str, Any]]) -> None:
    assert len(looks) == 4
    for look in looks:
        assert look["errors"] == []
        (request,) = (url for url in look["requests"] if not url.startswith("data:"))
        assert request.startswith("file://") and request.endswith("report.html")


def test_it_fits_a_screen_and_a_phone(looks: list[dict[str, Any]]) -> None:
    widths = [(look["overflow"], look["overflow_when_open"]) for look in looks]
    assert widths == [(0, 0)] * 4


def test_plots_are_drawn_in_the_colours_of_the_theme(looks: list[dict[str, Any]]) -> None:
    for look in looks:
        assert [plot["id"] for plot in look["plots"]] == ["quality-1", "losses"]
        assert all(plot["painted"] > 3000 for plot in look["plots"])
    by_theme = {look["colorScheme"]: look for look in looks}
    assert by_theme["light"]["background"] == "rgb(255, 255, 255)"
    assert by_theme["dark"]["background"] == "rgb(20, 23, 28)"
    light, dark = (by_theme[theme]["plots"][0]["lightness"] for theme in ("light", "dark"))
    assert abs(light - dark) > 20  # grids of 228 and 47 of 255


def test_the_theme_can_be_chosen(looks: list[dict[str, Any]]) -> None:
    chosen, dark = looks[0], looks[2]
    assert chosen["chosen"] == dark["background"]
    assert abs(chosen["chosen_plots"][1]["lightness"] - dark["plots"][1]["lightness"]) < 10


def test_points_say_what_they_are(looks: list[dict[str, Any]]) -> None:
    tips = " ".join(looks[0]["tips"])
    assert "tiny (chain); value: 10.0 %; compute: 50 FLOP" in tips
    assert "small (alone); value: 40.0 %; compute: 300 FLOP" in tips


def test_a_finger_reads_points_as_a_pointer_does(looks: list[dict[str, Any]]) -> None:
    tips = {tip for tip in looks[0]["tips"] if tip}
    for look in (looks[1], looks[3]):
        first, *tapped = look["tapped"]
        assert first.startswith("Tap a point")
        assert "tiny (chain); value: 10.0 %; compute: 50 FLOP" in tapped
        assert "small (alone); value: 40.0 %; compute: 300 FLOP" in tapped
        assert all(any(one in tip for tip in tips) for one in tapped), (tapped, tips)
        assert look["ringed"] == 1
        before, after = look["tapped_beside"]
        assert before == after, "nothing is near"


def test_keys_step_through_points(looks: list[dict[str, Any]]) -> None:
    first, second, again, last = looks[1]["stepped"]
    assert first == again and len({first, second, last}) == 3
    assert all(one and not one.startswith("Tap") for one in (first, second, last))


def test_the_keyboard_reaches_everything(looks: list[dict[str, Any]]) -> None:
    tabbed = looks[0]["tabbed"]
    for stop in (
        "SELECT theme",
        "INPUT tiny",
        "INPUT alone",
        "DIV Zoom In",
        "DIV Reset",
        "BUTTON ▶",
    ):
        assert stop in tabbed, tabbed
    assert any(stop.startswith("SUMMARY 300 tensors") for stop in tabbed)
    everything, without_tiny, again = looks[0]["visible"]
    assert everything == again > without_tiny > 0
    before, after = looks[0]["zoomed"]
    assert after < before


def test_a_dark_page_is_printed_light(looks: list[dict[str, Any]]) -> None:
    light, dark = looks[0], looks[2]
    assert dark["pdf"] > 20_000
    assert abs(dark["printed_plots"][1]["lightness"] - light["plots"][1]["lightness"]) < 10
