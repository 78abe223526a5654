"""What a terminal and a log show of a run, and of the run after it."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy

import compt
from compt.report.growth import GrowthReport
from compt.report.progress import Several
from compt.report.watch import terminal
from compt.report.watch.follower import Follower
from compt.report.watch.lines import line, parse_line
from compt.report.watch.terminal import Lines, Terminal, on_output
from tests.conftest import TOY
from tests.report.records import stage_record

CURVE = [{"iter": 4, "seconds": 1.0, "metrics": {"val/loss": {"value": math.nan}}}]


@pytest.fixture(scope="module")
def plan():
    return compt.plan({**TOY, "grower": dict(type="compt:lossless")})


@pytest.fixture
def run(plan, tmp_path):
    return Follower(tmp_path, plan)


def on_a_terminal(encoding="utf-8", width=100, **options):
    """A terminal, and what has been written to it."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    keys = dict(force_terminal=True, width=width, height=30, soft_wrap=True, highlight=False)
    shown = Terminal(Console(file=file, **keys, **options))
    return shown, lambda: written.getvalue().decode(encoding)


def letters(text):
    """What is left of an output without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def lines(run, capsys):
    """Lines of a log, and those that have been printed since the last call as mappings."""
    shown = Lines(Console(soft_wrap=True, highlight=False))
    shown.follow(run.status)

    def printed():
        return list(map(parse_line, capsys.readouterr().out.splitlines()))

    return shown, printed


def test_lines_of_a_stage_from_its_start_to_its_end(run, plan, lines):
    shown, printed = lines
    told, stage = Several(run, shown), plan.stages[1]
    told.stage_start(stage)
    told.grown(GrowthReport("lossless", False, "of its norms", counts={"copied": 2}))
    told.report(0, 8, math.nan)
    told.report(4, 8, 2.0)
    start, grown, first, train = printed()
    keys = dict(stage="b", event="start", iters="8", batch_size="32", grower="lossless")
    assert start.items() >= dict(keys, transfer="feature_mse").items()
    keys = dict(event="grown", keeps_function="no", reason="of its norms", copied="2")
    assert grown.items() >= keys.items()
    assert "loss" not in first and first["iter"] == "0/8"
    assert train.items() >= dict(stage="b", event="train", iter="4/8", loss="2").items()
    assert float(train["samples_per_s"]) > 0 and train["left"] == "0:00"
    assert int(train["memory_mib"]) > 50
    told.evaluating()
    told.evaluated([])
    told.evaluated(CURVE)
    told.evaluated(CURVE)
    told.stage_done(stage_record("b", [(8, 1.0, 1.0, 0.5)], index=1, stopped='a "goal"'))
    measured, done = printed()
    assert measured.items() >= dict(event="evaluated", iter="4/8").items()
    assert measured["val/loss"] == "nan"
    keys = dict(stage="b", event="done", seconds="1.0", stopped='a "goal"')
    assert done.items() >= {**keys, "val/loss": "0.5"}.items()


def test_a_line_at_every_tenth_and_every_ten_minutes(run, plan, lines, monkeypatch):
    shown, printed = lines
    now = [1e6]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    run.stage_start(plan.stages[0])
    shown.stage_start(plan.stages[0])
    printed()
    for iteration in range(0, 101, 5):
        shown.report(iteration, 100, 2.0)
    assert len(printed()) == 11
    shown.stage_start(plan.stages[0])
    printed()
    for iteration in range(6):
        now[0] += 200
        shown.report(iteration, 10**6, 2.0)
    assert len(printed()) == 2


def test_a_line_says_whether_the_time_left_is_a_bound(run, plan, lines):
    shown, printed = lines
    run.stage_start(plan.stages[0])
    shown.stage_start(plan.stages[0])
    for iteration in (0, 4):
        run.report(iteration, 8, 2.0)
        shown.report(iteration, 8, 2.0)
    assert [pairs.get("chain_left_is") for pairs in printed()] == [None, None, "at_most"]


def test_learned_growth_has_lines_of_its_own(run, plan, lines):
    shown, printed = lines
    run.chain = replace(plan, stages=tuple(replace(s, growth_iters=4) for s in plan.stages))
    told = Several(run, shown)
    told.stage_start(plan.stages[1])
    told.learning(1, 2.5)
    told.grown(GrowthReport("ligo", True))
    told.report(0, 8, math.nan)
    _start, growing, _grown, train = printed()
    assert growing.items() >= dict(event="growing", calls="1/4", loss="2.5").items()
    assert train["event"] == "train", "though growing had more tenths"


@pytest.mark.parametrize("text", ["a b", "", 'say "x"', "k=v", "a\nb", "1", "c:\\d", "ü"])
def test_a_line_is_read_as_it_was_written(text):
    written = line(note=text, number=3, left=None)
    assert "\n" not in written
    pairs = parse_line(written)
    assert (pairs["note"], pairs["number"]) == (text, "3")
    assert pairs.keys() == {"note", "number", "time"}


def test_a_terminal_shows_the_run_at_its_foot(run, plan, tmp_path):
    shown, written = on_a_terminal()
    with shown:
        shown.plan(plan)
        shown.note("seed: 7 -> 8 [a]")
        run.stage_start(plan.stages[1])
        shown.follow(run.status)
        shown.stage_start(plan.stages[1])
        print("a warning of a library")
        shown.grown(GrowthReport("lossless", True, counts={"copied": 2}))
    text = letters(written())
    assert "note: seed: 7 -> 8 [a]" in text
    assert "grown by lossless, transfer feature_mse" in text
    assert "growth keeps the function" in text and "2 copied" in text
    assert "▲ b growing" in text and "memory" in text
    assert "a warning of a library" in text, "above the view, whose lines are not torn"


def test_a_run_that_is_killed_leaves_the_cursor_visible(run):
    shown, written = on_a_terminal()
    with shown:
        shown.follow(run.status)
        sys.stdout.write("a line\n")
        assert written().rfind("\x1b[?25h") > written().rfind("\x1b[?25l")


def test_a_second_plan_begins_anew(run, plan):
    shown, written = on_a_terminal()
    with shown:
        shown.follow(run.status)
        before = len(written())
        shown.plan(plan)
        assert "\x1b[2K" in written()[before:], "the view of the first run is gone"
        shown.follow(run.status)
    assert sys.stdout is not None and not isinstance(sys.stdout, FileProxy)


def test_a_terminal_of_letters_alone(run, plan):
    shown, written = on_a_terminal("ascii", 60, no_color=True)
    with shown:
        run.stage_start(plan.stages[0])
        shown.follow(run.status)
    assert "> a 0/8 -> . b -> . c" in letters(written())
    assert "\x1b[3" not in written(), "no colour"


def test_a_finished_stage_says_what_is_to_be_known():
    shown, written = on_a_terminal()
    record = stage_record("a", [(8, 1.0, 1.0, None)], broken_samples=3, stopped="that is enough")
    shown.stage_done(record)
    lines = written().splitlines()
    assert lines[0].startswith("  training samples that could not be read: 3;")
    assert lines[1:] == ["  that is enough", "  a done in 1 s: val/loss not finite"]


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        (dict(TTY_COMPATIBLE="1"), Terminal),
        (dict(TTY_COMPATIBLE="1", TERM="dumb"), Lines),
        ({}, Lines),
    ],
)
def test_where_there_is_no_terminal_there_are_lines(monkeypatch, variables, kind):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert type(on_output()) is kind


def test_a_logger_from_before_writes_above_the_view(run, capsys):
    logger, handler = logging.getLogger("a library"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    before = handler.stream
    shown, written = on_a_terminal()
    try:
        with shown:
            shown.follow(run.status)
            logger.warning("a warning")
        assert "a warning" in letters(written())
        assert "a warning" not in capsys.readouterr().err
        assert handler.stream is before
    finally:
        logger.removeHandler(handler)


def test_a_forked_process_writes_past_the_view(run):
    shown, _ = on_a_terminal()
    streams = sys.stdout, sys.stderr
    with shown:
        shown.follow(run.status)
        assert isinstance(sys.stdout, FileProxy)
        process = os.fork()
        if not process:
            os._exit(isinstance(sys.stdout, FileProxy) or isinstance(sys.stderr, FileProxy))
        assert os.waitpid(process, 0)[1] == 0
    assert (sys.stdout, sys.stderr) == streams
