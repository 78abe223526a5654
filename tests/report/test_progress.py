"""What the terminal shows of a run, and of the run after it."""

from __future__ import annotations

import math

import pytest

import compt
from compt.report.progress import Terminal
from tests.report.records import stage_record


@pytest.fixture
def terminal():
    with Terminal() as shown:
        yield shown


def test_a_second_plan_begins_anew(terminal, toy):
    """The bars are of the second run alone."""
    plans = [compt.plan(toy), compt.plan({**toy, "chain": toy["chain"][:1]}, individual=True)]
    for chain_plan in plans:
        terminal.plan(chain_plan)
        terminal.stage_start(chain_plan.stages[0])
        terminal.report(4, 8, 2.0)
        chain, stage = terminal.bars.tasks
        assert (chain.total, stage.total) == (chain_plan.flops, 8)
        assert chain.completed == chain_plan.stages[0].flops / 2


def test_a_grower_of_compts_own_is_shown_by_its_short_name(terminal, toy, capsys):
    chain_plan = compt.plan({**toy, "grower": dict(type="compt:lossless")})
    terminal.plan(chain_plan)
    terminal.stage_start(chain_plan.stages[1])
    assert "b: 8 iterations of 32, grown by lossless, transfer" in capsys.readouterr().out


def test_a_finished_stage_says_what_is_to_be_known(terminal, capsys):
    record = stage_record("a", [(8, 1.0, 1.0, None)], broken_samples=3, stopped="that is enough")
    terminal.stage_done(record)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  training samples that could not be read: 3;")
    assert lines[1:] == ["  that is enough", "  a done in 1 s: val/loss not finite"]


def test_lines_stand_for_bars_at_every_tenth(terminal, toy, capsys):
    toy["chain"][0]["iters"] = 100
    chain_plan = compt.plan(toy)
    terminal.plan(chain_plan)
    terminal.stage_start(chain_plan.stages[0])
    capsys.readouterr()
    for iteration in range(0, 101, 5):
        terminal.report(iteration, 100, 2.0 if iteration else math.nan)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"{10 * i}/100" for i in range(11)]
