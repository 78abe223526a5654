"""A plan finds what is frozen, counts what that saves, and refuses what fits nothing."""

from __future__ import annotations

import re

import pytest

import compt
from compt.errors import ComptError
from compt.growth.axes import describe
from compt.growth.carried import carried_over, frozen_params
from compt.growth.run import build_grower
from compt.report.plan_explained import explained
from compt.report.plan_table import plan_text
from compt.testing.toy import TiedNet, ToyNet

EXPAND = dict(type="stack", order="expand", blocks="zero")


@pytest.fixture
def pair(toy):
    """A chain of two members of one width, the second of which is twice as deep."""
    members = [
        dict(name=name, model=dict(width=8, depth=depth), iters=8)
        for name, depth in (("a", 2), ("b", 4))
    ]
    return dict(toy, chain=members, grower=EXPAND, transfer="none")


def with_freeze(config, value, member=1):
    config["chain"][member]["freeze"] = value
    return config


def test_old_is_what_was_carried_over_whole():
    def old(source, target, grower=EXPAND):
        return carried_over(build_grower(grower), describe(source), describe(target))

    deeper = old(ToyNet(8, 2), ToyNet(8, 4))
    assert {name.split(".")[1] for name in deeper if name.startswith("blocks.")} == {"0", "2"}
    assert {"embed.weight", "norm.bias", "head.weight"} < {*deeper}
    assert old(ToyNet(8, 2), ToyNet(16, 4), "lossless") == ["head.bias"]
    assert old(TiedNet(8, 1), TiedNet(8, 2)).count("head.weight") == 1


def test_a_tied_tensor_is_frozen_by_either_name():
    names = [frozen_params(TiedNet(8, 1), [name]) for name in ("embed.weight", "head.weight")]
    assert names[0] == names[1] == ("embed.weight",)


def test_a_plan_says_what_is_frozen_and_what_it_saves(pair):
    whole = compt.plan(pair).stages[1]
    for until, iters in ((1.0, 8), (0.5, 4)):
        plan = compt.plan(with_freeze(pair, dict(params="old", until=until)))
        stage = plan.stages[1]
        assert stage.frozen.iters == iters
        saved = iters * stage.batch_size * stage.frozen.saved_flops
        assert 0 < saved == whole.flops - stage.flops
        assert (stage.student_flops, stage.params) == (whole.student_flops, whole.params)
        assert "frozen: 18 parameters of 'b' with 770 of its 1.36 k values" in plan_text(plan)
        assert "for what is frozen" in explained(plan, 1000)


def test_the_backward_pass_of_the_first_layers_is_saved(pair):
    """A weight's gradient and, before the first that is trained, that of its input."""
    plan = compt.plan(with_freeze(pair, ["embed.*", "blocks.0.*"]))
    width, hidden = 8, 16
    weights = 2 * 8 * width + 2 * 2 * width * hidden
    inputs = 2 * 2 * width * hidden  # of the block's, as none are asked for of the points
    assert plan.stages[1].frozen.saved_flops == weights + inputs


def test_a_member_alone_is_trained_whole(pair):
    plan = compt.plan(with_freeze(pair, "old"), individual=True)
    assert plan.stages[1].frozen is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bloks.*", "no parameter that is trained is called 'bloks.*'"),
        ("embed.wieght", "Did you mean 'embed.weight' or"),
        (["old", "x"], "no parameter that is trained is called 'x'"),
        ("*", "it names all 30 parameters, and leaves none to train"),
        ([], "it names nothing"),
        (3, "3 is not a string or a list or a dict"),
        (dict(until=0.5), "freeze.params is missing"),
        (dict(params="old", until=0), "freeze.until: 0 is not a positive number"),
        (dict(params="old", until=1.5), "freeze.until: 1.5 is not a positive number up to 1"),
        (dict(params="old", util=1), "Did you mean 'until'?"),
    ],
)
def test_what_fits_nothing_is_refused_before_training(pair, value, message):
    with pytest.raises(ComptError, match=re.escape(message)):
        compt.plan(with_freeze(pair, value))


def test_old_needs_a_grower_that_keeps_tensors(pair):
    pair["chain"][1]["grower"] = "scratch"
    with pytest.raises(ComptError, match="The grower Scratch does not grow tensor by tensor"):
        compt.plan(with_freeze(pair, "old"))


def test_old_that_is_nowhere_is_refused(pair, monkeypatch):
    monkeypatch.setattr("compt.planning.freezing.carried_over", lambda *_: [])
    with pytest.raises(ComptError, match="'old' fits nothing, as every tensor has grown wider"):
        compt.plan(with_freeze(pair, "old"))


def test_the_first_member_has_nothing_to_keep(pair):
    with pytest.raises(ComptError, match="the first member starts from random weights"):
        compt.plan(with_freeze(pair, "embed.*", member=0))
