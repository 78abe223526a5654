"""The paper's recipes: planned without data or memory; sub-chains worked out by hand, beside
published figures.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from rich.console import Console

import compt
from compt.config import load_config
from compt.config.options import Published
from compt.errors import ConfigError
from compt.growth.models import build_paradigm
from compt.report.plan_table import plan_table, plan_text
from tests.planning.conftest import BOTH, FORWARD, little_memory

PAPER = Path(__file__).parents[2] / "configs" / "paper"
RECIPES = sorted(path.stem for path in PAPER.glob("*.py"))
LIBRARIES = {"clip": "open_clip", "mae": "mmpretrain", "causal_lm": "transformers"}


def recipe(name: str) -> compt.config.ChainConfig:
    """A recipe whose libraries are imported."""
    content = Config.fromfile(PAPER / f"{name}.py")
    pytest.importorskip(LIBRARIES[content.paradigm.type])
    return load_config(content)


@cache
def planned(name: str) -> compt.planning.planner.ChainPlan:
    """Plan a recipe with little memory, once."""
    config = recipe(name)
    with torch.device("meta"):  # what is imported on the way is not counted
        build_paradigm(config.paradigm, missing_ok=True).build_model(config.stages[0].member)
    with little_memory(2**28):
        return compt.plan(config)


def printed(plan: Any) -> str:
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(plan_table(plan), plan_text(plan))
    return captured.get()


def row(text: str, name: str) -> str:
    """The line of a sub-chain, with single spaces."""
    (found,) = [" ".join(line.split()) for line in text.splitlines() if line.split()[:1] == [name]]
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_planned_without_data_or_memory(name):
    plan = planned(name)
    assert [stage.name for stage in plan.stages] == [stage.name for stage in recipe(name).stages]
    assert all(stage.expansion > 1.3 for stage in plan.stages[1:])
    others = [warning for warning in plan.warnings if "parameters" not in warning]
    assert [warning for warning in others if not warning.startswith("init: there is no")] == []
    shares = [chain.relative_compute for chain in plan.sub_chains]
    assert len(shares) == len(plan.stages) - 1
    assert all(0.1 < share < 0.8 for share in shares)
    if len(plan.stages) == 1:
        assert plan.alone_flops == plan.flops
    else:
        assert plan.alone_flops > 3 * plan.flops


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_to_run_it(name):
    head = (PAPER / f"{name}.py").read_text().split('"""')[1]
    assert f"configs/paper/{name}.py" in head
    for word in ("Run: ", "Needs: ", "Plan: ", "Gives: ", "From: "):
        assert word in head


def test_the_papers_sub_chains_stand_beside_its_own_figures():
    plan = planned("cc3m_vit")
    ours = [chain.relative_compute for chain in plan.sub_chains]
    assert ours == pytest.approx([0.228, 0.271, 0.438], abs=1e-3)
    assert [chain.published for chain in plan.sub_chains] == [0.28, 0.36, 0.48]
    text = printed(plan)
    for name, own, published in (
        ("vit-t->vit-s->vit-b->vit-l", "22.8 %", "28 %"),
        ("vit-s->vit-b->vit-l", "27.1 %", "36 %"),
        ("vit-b->vit-l", "43.8 %", "48 %"),
    ):
        assert row(text, name).endswith(f"{own} {published}")
    assert "published: arXiv 2604.12391" in text


# Worked out by hand: a, b and c see 256, 256 and 192 samples; whoever is first sees 256


def test_a_sub_chain_charges_its_members_and_their_teachers(toy):
    alone = 256 * BOTH["c"]
    last = 192 * (BOTH["c"] + FORWARD["b"])
    whole = 256 * BOTH["a"] + 256 * (BOTH["b"] + FORWARD["a"]) + last
    plan = compt.plan(toy)
    assert plan.largest_alone_flops == alone == 11_182_080
    assert {c.name: c.flops for c in plan.sub_chains} == {
        "a->b->c": whole,
        "b->c": 256 * BOTH["b"] + last,
    }
    assert [c.relative_compute for c in plan.sub_chains] == [13_592_576 / alone, 12_806_144 / alone]
    assert plan.sub_chains[0].flops == plan.flops


def test_the_first_budget_is_what_full_training_means(toy):
    toy["chain"][0]["iters"] = 100
    toy["chain"][2]["transfer"] = dict(type="none")
    toy["individual"] = dict(iters=5)
    _, short = compt.plan(toy).sub_chains
    assert short.flops == 3200 * BOTH["b"] + 192 * BOTH["c"]
    assert short.relative_compute == short.flops / (3200 * BOTH["c"])


def test_sub_chains_are_printed_with_their_rule(toy):
    text = printed(compt.plan(toy))
    assert "of c alone" in text
    assert "121.6 %" in text and "114.5 %" in text
    assert "published" not in text
    for words in (
        "as many samples as 'a'",
        "forward and backward of the student",
        "a multiply-add as 2",
    ):
        assert words in text
    toy["published"] = dict(source="a paper", relative_compute={"b->c": 1.25})
    text = printed(compt.plan(toy))
    assert row(text, "b->c").endswith("114.5 % 125 %")
    assert row(text, "a->b->c").endswith("121.6 % -")
    assert "published: a paper" in text


def test_sub_chains_are_json(toy):
    toy["published"] = dict(source="a paper", relative_compute={"b->c": 1.25})
    table = json.loads(json.dumps(compt.plan(toy).to_dict(), allow_nan=False))
    assert table["published"] == "a paper"
    assert [c["name"] for c in table["sub_chains"]] == ["a->b->c", "b->c"]
    assert [c["published"] for c in table["sub_chains"]] == [None, 1.25]
    assert table["sub_chains"][1]["relative_compute"] == 12_806_144 / table["largest_alone_flops"]


def test_without_a_chain_there_are_none(toy):
    assert compt.plan(toy, individual=True).sub_chains == ()
    toy["chain"][0] |= dict(init="some/folder", iters=0)
    plan = compt.plan(toy | dict(individual=dict(iters=3)))
    assert plan.sub_chains == ()
    assert "sub-chain" not in printed(plan)
    toy["chain"] = toy["chain"][:1]
    assert compt.plan(toy).to_dict()["sub_chains"] == []


# Published figures in a config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "published: 5 is not a dict"),
        (dict(source=3), "published.source: 3 is not a string"),
        (dict(relative_compute=[0.3]), r"published.relative_compute: \[0.3\] is not a dict"),
        (dict(sourec="x"), r"published\.sourec is not a key .*'source'"),
        (
            dict(relative_compute={"a->c": 0.3}),
            r"published\.relative_compute: 'a->c' is no end .*'a->b->c', 'b->c'",
        ),
        (dict(relative_compute={"c": 0.3}), "'c' is no end"),
        (dict(relative_compute={"b->c": "28 %"}), "'b->c' is '28 %', not a positive number"),
        (dict(relative_compute={"b->c": True}), "not a positive number"),
        (dict(relative_compute={"b->c": 0}), "not a positive number"),
        (dict(relative_compute={"b->c": float("nan")}), "not a positive number"),
    ],
)
def test_a_published_figure_that_cannot_be_is_a_fault(toy, given, message):
    with pytest.raises(ConfigError, match=message):
        load_config({**toy, "published": given})


def test_published_figures_are_kept_as_given(toy):
    given = dict(source="arXiv 2604.12391", relative_compute={"a->b->c": 0.28})
    assert load_config({**toy, "published": given}).published.to_dict() == given
    assert load_config({**toy, "published": None}).published == Published()
