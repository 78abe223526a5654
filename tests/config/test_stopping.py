"""Rules that end a stage early: by hand, in a chain, resumed, and charged for what was trained."""

from __future__ import annotations

import json
import math

import pytest

import compt
from compt.config import load_config
from compt.config.stopping import Gain, Until
from compt.errors import ConfigError, TrainingError


def curve(*values, higher=True, name="val/accuracy"):
    return [
        {"iter": 10 * (i + 1), "metrics": {name: {"value": value, "higher_is_better": higher}}}
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "higher", "ends"),
    [
        ([0.1, 0.3], True, False),
        ([0.1, 0.4], True, True),
        ([0.5, 0.3], True, False),  # the last one counts
        ([0.9, 0.5], False, False),
        ([0.9, 0.4], False, True),
        ([0.9, None], True, False),
        ([], True, False),
    ],
)
def test_until_by_hand(values, higher, ends):
    assert bool(Until(target=0.4).reached(curve(*values, higher=higher))) is ends


@pytest.mark.parametrize(
    ("values", "rule", "ends"),
    [
        ([0.0, 1.0], Gain(), False),  # two points are no trend
        ([0.0, 1.0, 2.0], Gain(minimum=0.5), False),  # 1 against a mean of 1
        ([0.0, 1.0, 1.3], Gain(minimum=0.5), True),  # 0.3 against a mean of 0.65
        ([0.0, 1.0, 1.3], Gain(minimum=0.4), False),
        ([0.0, 1.0, 1.3], Gain(minimum=0.4, patience=2), False),  # one more evaluation is needed
        (
            [0.0, 0.9, 1.0, 1.0],
            Gain(minimum=0.4, patience=2),
            True,
        ),  # 0.05 an evaluation against a third
        ([1.0, 0.9, 0.8], Gain(), True),
        ([0.5, 0.5, 0.5], Gain(minimum=0.0), True),
    ],
)
def test_gain_by_hand(values, rule, ends):
    assert bool(rule.reached(curve(*values))) is ends
    falling = curve(*(-v for v in values), higher=False)
    assert bool(rule.reached(falling)) is ends


def test_an_unknown_metric_names_those_there_are():
    with pytest.raises(TrainingError, match="'val/acc', which is not measured") as caught:
        Until(metric="val/acc", target=1).reached(curve(0.5))
    assert "val/accuracy" in caught.value.do


def manifest(folder, stage):
    return json.loads((folder / stage / "manifest.json").read_text())


@pytest.fixture
def early(toy):
    """The second member stops at its first evaluation of four, the third never."""
    toy["evaluations"] = 4
    toy["chain"][1]["stopping"] = dict(type="until", metric="val/accuracy", target=0.0)
    toy["chain"][2]["stopping"] = dict(type="until", target=2.0)
    return toy


def test_a_stage_ends_early_and_is_charged_for_what_it_trained(early, tmp_path):
    folder = compt.train(early, work_dir=tmp_path / "work")
    second, third = (manifest(folder, stage) for stage in ("02_b", "03_c"))
    assert (second["iters"], second["samples"], third["iters"]) == (2, 64, 6)
    assert second["stopped"] == "val/accuracy has reached 0: stopped after 2 of 8 iterations"
    assert third["stopped"] == ""
    flops = second["flops"]
    assert flops["total"] == pytest.approx(
        64 * (flops["student_per_sample"] + flops["teacher_per_sample"])
    )
    assert [point["iter"] for point in second["curve"]] == [2]
    assert compt.plan(early).stages[1].iters == 8, "the plan names the most"


def test_alone_every_member_has_its_whole_budget(early, tmp_path):
    early["individual"] = dict(iters=4)
    folder = compt.train(early, work_dir=tmp_path / "work", individual=True)
    assert [manifest(folder, stage)["iters"] for stage in ("01_a", "02_b", "03_c")] == [4, 4, 4]


def test_a_stage_that_was_killed_after_its_end_ends_there_again(early, tmp_path, monkeypatch):
    """Killed between the last checkpoint of the stage and its manifest."""
    whole = compt.train(early, work_dir=tmp_path / "whole")

    from compt.weights import hand_over_weights

    def die(model, path):
        if path.parent.name == "02_b":
            raise RuntimeError("killed")
        return hand_over_weights(model, path)

    with monkeypatch.context() as patched:
        patched.setattr("compt.chain.hand_over_weights", die)
        with pytest.raises(RuntimeError, match="killed"):
            compt.train(early, work_dir=tmp_path / "work")
    resumed = compt.train(early, work_dir=tmp_path / "work", resume=True)
    for stage in ("01_a", "02_b", "03_c"):
        name = "weights.safetensors"
        assert (resumed / stage / name).read_bytes() == (whole / stage / name).read_bytes()


@pytest.mark.parametrize(
    ("budget", "fault"),
    [
        (
            dict(type="untill", target=1),
            r"stopping: type='untill' is not 'until' or 'gain'. Did you mean 'until'",
        ),
        (dict(type="until"), r"chain.1.stopping.target is missing"),
        (dict(type="until", target=math.nan), r"chain.1.stopping.target: nan is not a number"),
        (dict(type="until", target=1, goal=2), r"chain.1.stopping.goal is not a key"),
        (
            dict(type="until", target=1, metric=3),
            r"chain.1.stopping.metric: 3 is not a string",
        ),
        (
            dict(type="gain", patience=0),
            r"chain.1.stopping.patience: 0 is not a whole number of at least 1",
        ),
        (dict(type="gain", minimum="x"), r"chain.1.stopping.minimum: 'x' is not a number"),
        ("until", r"chain.1.stopping: 'until' is not a dict"),
    ],
)
def test_bad_rules(toy, budget, fault):
    toy["chain"][1]["stopping"] = budget
    with pytest.raises(ConfigError, match=fault):
        load_config(toy)
