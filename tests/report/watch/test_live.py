"""The view of a run: what it says, and that it fits into any terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from compt.report.format import clock, size
from compt.report.watch.live import PLAIN, STUCK_AFTER, UNICODE, View, glyphs_of
from compt.report.watch.sparkline import limits, sparkline
from compt.report.watch.status import Reference
from tests.report.watch.statuses import METRIC, RUNNING, run_status, stage

SOURCE = Reference(label="source a", samples=1000, losses=((900.0, 1.5),), **METRIC)
ALONE = Reference(
    label="b alone", samples=1000, points=((200.0, 0.2), (1000.0, 0.6)), is_alone=True, **METRIC
)


def text(status, width=80, glyphs=UNICODE, now=1000.0, **options):
    """What the view shows, as lines."""
    return [line.plain for line in View(status, width, glyphs).lines(now, **options)]


def test_a_running_chain_says_where_it_is():
    status = run_status(
        stage("a", "done"),
        RUNNING,
        stage("c"),
        references=(SOURCE, ALONE),
        seconds_left=3700.0,
        memory_bytes=2**31,
        device_memory_bytes=2**20,
        device_total_bytes=2**37,
        world_size=2,
        left_out=("first", "second", "third"),
    )
    row, chain, own, header, loss, metric, memory, *left_out = text(status, now=1010.0)
    assert row == "✓ a 70.0 % → ▶ b 40/100 → · c"
    assert chain.endswith(" 47 %  1:01:30 left"), "10 seconds since it was written are over"
    assert own.startswith("b     ━") and own.endswith(" 40 %  0:24 left  812 samples/s")
    assert header.split() == ["b", "source", "a", "b", "alone,", "by", "now"]
    assert loss.split()[:2] == ["loss", "2"] and "1.5" in loss.split()
    assert "20.0 %" in metric and "60.0 %" not in metric, "as it was after as many samples"
    assert memory == "memory 2.0 GiB, GPU at most 1 MiB of 128.0 GiB (the first of 2 processes)"
    assert left_out == ["first", "second", "and 1 more"]


def test_a_time_that_is_a_bound_says_so():
    _row, chain, own, *_ = text(run_status(RUNNING, seconds_left=70.0, left_is_bound=True))
    assert chain.endswith("  at most 1:10 left") and "at most" not in own


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        (dict(state="growing", growth_iters=50, growth_calls=20), "▲ b growing 20/50"),
        (dict(state="growing"), "▲ b growing"),
        (dict(state="evaluating"), "▶ b 40/100 evaluating"),
        (dict(state="failed"), "✗ b at 40/100"),
    ],
)
def test_what_a_stage_is_at(changes, cell):
    assert text(run_status(replace(RUNNING, **changes)))[0] == cell


def test_a_run_that_has_ended_has_nothing_left_to_wait_for():
    lines = text(run_status(RUNNING, memory_bytes=1), now=5000.0, is_alive=False)
    assert lines[0] == "■ b at 40/100"
    assert not any("left" in line or "memory" in line for line in lines)


def test_a_run_that_does_not_get_on_says_so():
    status = run_status(RUNNING)
    assert not any("no progress" in line for line in text(status, now=1001.0 + 60))
    late = 1000.0 + STUCK_AFTER + 5
    assert "no progress for 10:05, while running" in text(status, now=late)


@pytest.mark.parametrize("glyphs", [UNICODE, PLAIN])
@pytest.mark.parametrize("width", [20, 40, 80, 140])
def test_nothing_is_wider_than_the_terminal(width, glyphs):
    long = {**METRIC, "metric": "a_split/with_a_metric_of_a_long_name"}
    stages = [stage(f"member-{index}", "done") for index in range(7)]
    status = run_status(
        *stages,
        replace(RUNNING, name="a_name_that_is_far_too_long", points=((400.0, 0.3),), **long),
        stage("last"),
        references=(SOURCE, ALONE),
        seconds_left=1e6,
        memory_bytes=2**40,
        left_out=("data of 'train': über die Maßen viel " * 5,),
    )
    lines = text(status, width, glyphs)
    assert max(map(len, lines)) <= width
    assert len(lines) < 24 or width < 80
    if glyphs is PLAIN:
        assert all(line.isascii() for line in lines)
    shown = " ".join(lines)
    assert all(f"member-{index}" in shown for index in range(7)), "each stage is there"


def test_terminals_without_unicode_get_other_characters():
    consoles = [
        Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        for encoding in ("utf-8", "ascii", "latin-1")
    ]
    assert list(map(glyphs_of, consoles)) == [UNICODE, PLAIN, PLAIN]


def test_a_sparkline_goes_as_far_as_its_curve():
    points = ((20.0, 0.0), (50.0, 0.5), (70.0, 1.0))
    assert sparkline(points, 100, 10, (0.0, 1.0)) == "  ▁▁▁▅▅█"
    assert sparkline(points, 100, 10, (0.0, 2.0), "12") == "  111112"
    assert sparkline((), 100, 10, (0.0, 1.0)) == ""
    assert sparkline(((100.0, 3.0),), 100, 4, limits([((100.0, 3.0),)])) == "   ▅"
    assert sparkline(((0.0, 3.0),), 0, 4, (0.0, 1.0), "ab") == "   b"
    two_in_one = ((1.0, 0.0), (2.0, 1.0))
    assert sparkline(two_in_one, 100, 1, (0.0, 1.0)) == "▅", "their mean"


def test_times_and_sizes_read_well():
    assert [clock(s) for s in (0, 59.9, 61, 3600, 172799, 176400)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:00:00",
        "47:59:59",
        "2d 1h",
    ]
    assert [size(n) for n in (2**20, 2**30, 1.5 * 2**30)] == ["1 MiB", "1.0 GiB", "1.5 GiB"]
