"""A chain's compute predicted from members alone: the rule by hand, and the command."""

from __future__ import annotations

import json

import pytest

import compt
from compt.cli import main
from compt.errors import ConfigError
from compt.planning.fading import FROM_END
from compt.report.prediction import fraction_left, predict, read_pilots
from compt.report.results import MemberResult, RunResult
from tests.conftest import config_file
from tests.report.records import stage_record


def member(name, values, *, flops=100.0, higher=False):
    points = [(10 * (i + 1), 0.0, 0.0, value) for i, value in enumerate(values)]
    return stage_record(name, points, flops=flops, higher_is_better=higher)


def alone(*records):
    return RunResult(
        "alone", "x", "individual", tuple(MemberResult(record, 0.0) for record in records), {}
    )


@pytest.mark.parametrize(
    ("source", "curve", "left"),
    [
        (2.0, [4.0, 3.0, 2.0, 1.5], 0.25),  # crossed at the third of four
        (2.0, [4.0, 3.0, 1.0, 0.5], 1 - 25 / 40),  # half way between the second and the third
        (2.0, [1.5, 1.0, 0.9, 0.8], 0.75),  # at its first evaluation already
        (2.0, [4.0, 3.5, 3.0, 2.5], 0.0),  # never: its source is better already
        (2.0, [4.0, None, 2.0, 1.0], 0.25),  # what was not finite is passed over
        (2.0, [None, None], 1.0),  # nothing to compare
    ],
)
def test_the_rule_by_hand(source, curve, left):
    assert fraction_left(member("a", [source]), member("b", curve)) == pytest.approx(left)
    flipped = [None if value is None else -value for value in curve]
    assert fraction_left(
        member("a", [-source], higher=True), member("b", flipped)
    ) == pytest.approx(left)


def test_a_family_over_two_seeds_by_hand():
    """a 100 FLOPs, b 400: nothing of b is left on one seed, a quarter on the other."""
    runs = []
    for curve in ([4.0, 2.0], [4.0, 3.0, 2.0, 1.0]):
        runs.append(alone(member("a", [2.0]), member("b", curve, flops=400.0)))
    predicted = predict(runs)
    need = 0.25 / (1 - 0.75 * FROM_END.share)
    assert [one.fraction for one in predicted.members] == [1.0, pytest.approx(need / 2)]
    assert predicted.members[0].deviation == 0
    error = (FROM_END.moved(1).share_for(1, 0.75) - FROM_END.moved(-1).share_for(1, 0.75)) / 4
    assert predicted.members[1].deviation == pytest.approx((need**2 / 2 + error**2) ** 0.5)
    assert predicted.flops == pytest.approx(100 + need / 2 * 400)
    assert predicted.deviation == pytest.approx(400 * predicted.members[1].deviation)
    assert predicted.acceleration == pytest.approx(500 / predicted.flops)
    assert predicted.acceleration_deviation == pytest.approx(
        500 / predicted.flops**2 * predicted.deviation
    )
    alone_quarter = predict(runs[1:])
    assert alone_quarter.deviation == pytest.approx(400 * 2 * error), "the rule's own"


def test_no_member_needs_more_than_alone():
    """And errors of the rule add up over members: it errs alike for all."""
    members = (member("a", [2.0]), member("b", [1.9, 1.0]), member("c", [0.99, 0.9]))
    predicted = predict([alone(*members)])
    need = 0.5 / (1 - 0.5 * FROM_END.share)
    assert [one.fraction for one in predicted.members] == [1.0] + [pytest.approx(need)] * 2
    late = (member("a", [2.0]), member("b", [1.9] * 10))
    need = 0.9 / (1 - 0.1 * FROM_END.share)
    assert predict([alone(*late)]).members[1].fraction == pytest.approx(need)
    one = predict([alone(*members[:2])])
    assert predicted.deviation == pytest.approx(2 * one.deviation)


@pytest.fixture
def pilots(toy, tmp_path):
    folders = []
    for seed in (0, 1):
        folders.append(
            compt.train({**toy, "seed": seed}, work_dir=tmp_path / f"seed_{seed}", individual=True)
        )
    return folders


def test_the_command(toy, pilots, tmp_path, capsys):
    config = config_file(tmp_path, toy)
    assert main(["plan", str(config), "--pilot", *map(str, pilots)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "predicted from members alone, as shares of their budgets: 'b'" in said
    assert main(["plan", str(config), "--pilot", str(pilots[0]), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["prediction"]
    assert [one["name"] for one in printed["members"]] == ["a", "b", "c"]
    assert printed["members"][0]["fraction"] == 1.0


def test_a_chain_is_no_pilot(toy, pilots, tmp_path):
    chain = compt.train(toy, work_dir=tmp_path / "chain")
    with pytest.raises(ConfigError, match="this is a chain's"):
        read_pilots([chain])
    (pilots[1] / "03_c" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="the same members, all finished"):
        read_pilots(pilots)
