"""What is left where a report cannot be drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compt.report import drawings
from compt.report.build import report, report_command, write
from compt.report.drawings import PAGE, PLOTS
from tests.report.work_folders import ALONE, CHAIN, make_run


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "c", "chain", CHAIN), make_run(tmp_path / "i", "individual", ALONE)]


def test_without_bokeh_the_rest_is_written(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bokeh"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    plots = dict.fromkeys(PLOTS, b"a plot")
    monkeypatch.setattr("compt.report.plots.draw_plots", lambda report: plots)
    assert report_command([str(folder) for folder in folders], json=False, out=None) == 0
    captured = capsys.readouterr()
    assert "it needs Bokeh. Install it: pip install 'compt[report]'" in captured.err
    assert all((folders[0] / name).is_file() for name in ("report.json", *PLOTS))
    assert not (folders[0] / PAGE).exists()


def test_a_failure_to_draw_is_said_and_fails_nothing(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    earlier = dict.fromkeys(drawings.DRAWN, b"earlier")
    write(report(folders), folders[0], drawings.Drawings(earlier, ()))

    def fail(*args: object) -> None:
        raise RuntimeError("no colours are left")

    monkeypatch.setattr("compt.report.plots.draw_plots", fail)
    monkeypatch.setattr("compt.report.html.page.html_page", fail)
    assert report_command([str(folders[0])], json=False, out=None) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "The plots could not be drawn: RuntimeError: no colours are left",
        "report.html could not be drawn: RuntimeError: no colours are left",
    ]
    assert (folders[0] / "report.json").is_file()
    # Those of the earlier report would contradict it.
    assert not any((folders[0] / name).exists() for name in drawings.DRAWN)
    with pytest.warns(UserWarning, match="no colours are left"):
        report(folders, out=folders[0])
