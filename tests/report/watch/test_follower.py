"""What a run knows of itself from what it tells, and what it leaves in its folder."""

from __future__ import annotations

import json
import math
import os

import pytest

import compt
from compt.errors import TrainingError
from compt.files import MANIFEST
from compt.report.watch.follower import Follower
from compt.report.watch.pace import Pace
from compt.report.watch.status import RunStatus
from tests.conftest import TOY
from tests.report.records import stage_record

NAN = math.nan


@pytest.fixture(scope="module")
def plan():
    """Of two members, both of 8 iterations of 32 samples."""
    return compt.plan({**TOY, "chain": TOY["chain"][:2]})


def evaluation(iteration, value):
    metric = {"value": value, "chance": 0.1, "higher_is_better": True, "unit": "share"}
    return {"iter": iteration, "seconds": 1.0, "metrics": {"val/accuracy": metric}}


def record(plan, index, **changes):
    """The record of a stage that the plan is of, measured in the middle and at its end."""
    stage = plan.stages[index]
    points = [(4, 1.0, 1.0, 0.25), (8, 2.0, 2.0, 0.5)]
    keys = dict(metric="val/accuracy", higher_is_better=True, flops=stage.flops, index=index)
    keys |= dict(params=stage.params, batch_size=32, iters=8, mode="chain")
    return stage_record(stage.name, points, **{**keys, **changes})


def test_a_chain_from_its_start_to_its_end(plan, tmp_path):
    first, second = plan.stages
    clock = [0.0]
    with Follower(tmp_path, plan, world_size=2, pace=Pace(lambda: clock[0])) as run:
        assert RunStatus.read(tmp_path / "status.json").current is None
        run.stage_start(first)
        run.report(0, 8, NAN)
        clock[0] += 2
        run.report(4, 8, 2.0)
        status = run.status()
        assert (status.current.state, status.current.iteration) == ("running", 4)
        assert status.share == pytest.approx(first.flops / 2 / plan.flops)
        assert status.current.losses == ((128.0, 2.0),)
        assert status.current.samples_per_second == 64
        assert status.current.seconds_left == pytest.approx(2)
        ratio = plan.stages[1].flops / first.flops
        assert status.seconds_left == pytest.approx(2 + 4 * ratio)
        assert status.left_is_bound, "only one size was timed"
        run.evaluating()
        assert run.status().current.state == "evaluating"
        run.evaluated([evaluation(4, 0.3)])
        assert run.status().current.points == ((128, 0.3),)
        assert run.status().current.state == "running"
        run.stage_done(record(plan, 0))
        run.stage_start(second)
        status = run.status()
        assert [stage.state for stage in status.stages] == ["done", "growing"]
        (source,) = status.references
        assert (source.label, source.points) == ("source a", ((128, 0.25), (256, 0.5)))
        assert source.losses == ((128.0, 2.0),), "of the same run"
        run.report(8, 8, 1.0)
        run.stage_done(record(plan, 1, left_out=left_out(3)))
    status = RunStatus.read(tmp_path / "status.json")
    assert (status.state, status.share, status.world_size) == ("finished", 1.0, 2)
    assert (status.pid, status.mode) == (os.getpid(), "chain")
    assert status.left_out == ("data of 'train': 3 of 10 left out or replaced: 3 broken",)
    assert os.listdir(tmp_path) == ["status.json"]


def test_what_is_left_of_a_chain_follows_from_two_sizes(tmp_path):
    plan = compt.plan(TOY)
    sizes = [stage.flops / stage.iters for stage in plan.stages]
    step = [1 + size / sizes[0] for size in sizes]  # one second each, and one for the first's FLOPs
    clock = [0.0]
    run = Follower(tmp_path, plan, pace=Pace(lambda: clock[0]))
    run.stage_start(plan.stages[0])
    run.report(0, 8, NAN)
    clock[0] += 4 * step[0]
    run.report(4, 8, 2.0)
    at_most = (
        4 + sum(s.iters * size / sizes[0] for s, size in zip(plan.stages[1:], sizes[1:]))
    ) * 2
    assert run.status().left_is_bound
    assert run.status().seconds_left == pytest.approx(at_most)
    keys = dict(seconds=8 * step[0] + 50, growth_seconds=50.0)
    run.stage_done(record(plan, 0, **keys))
    run.stage_start(plan.stages[1])
    assert run.status().left_is_bound and run.status().current.seconds_left > 0
    run.report(0, 8, NAN)
    clock[0] += 2 * step[1]
    run.report(2, 8, 2.0)
    status = run.status()
    left = 6 * step[1] + plan.stages[2].iters * step[2]
    assert not status.left_is_bound
    assert status.seconds_left == pytest.approx(left)
    assert left < at_most


@pytest.mark.parametrize(("world_size", "is_bound"), [(1, False), (2, True)])
def test_a_run_beside_it_tells_how_long_other_sizes_take(plan, tmp_path, world_size, is_bound):
    chain = tmp_path / "chain"
    chain.mkdir()
    with Follower(chain, plan, world_size=world_size):
        for index in range(2):
            record(plan, index, seconds=8.0 * (1 + index)).write(chain / "ab"[index] / MANIFEST)
    clock = [0.0]
    run = Follower(tmp_path, plan, other=chain, pace=Pace(lambda: clock[0]))
    run.stage_start(plan.stages[0])
    run.report(0, 8, NAN)
    clock[0] += 8
    run.report(4, 8, 2.0)
    ratio = plan.stages[1].flops / plan.stages[0].flops
    assert run.status().left_is_bound == is_bound, "of as many processes on this machine"
    assert run.status().seconds_left == pytest.approx(8 + 16 * (ratio if is_bound else 2))


def left_out(count):
    return {"train": {"samples": {"broken": count}, "parts": {}, "total": 10}}


def test_what_is_left_out_is_counted_once_a_split(plan, tmp_path):
    run = Follower(tmp_path, plan, left_out=left_out(1))
    run.stage_done(record(plan, 0, left_out=left_out(3)))
    (line,) = run.status().left_out
    assert "3 of 10" in line


def test_learned_growth_is_a_part_of_the_stage(plan, tmp_path):
    stage = plan.stages[1]
    stage = type(stage)(**{**vars(stage), "growth_iters": 10})
    plan = type(plan)((plan.stages[0], stage))
    run = Follower(tmp_path, plan)
    run.stage_done(record(plan, 0))
    run.stage_start(stage)
    run.learning(5, 2.0)
    status = run.status().current
    assert (status.state, status.growth_calls, status.growth_iters) == ("growing", 5, 10)
    assert status.flops_done == stage.growth_flops / 2
    assert status.losses == (), "its losses are not the stage's"
    run.learning(12, 2.0)
    assert run.status().current.growth_iters == 12, "more than it has announced"
    assert run.status().current.flops_done == stage.growth_flops
    run.report(0, 8, NAN)
    assert run.status().current.flops_done == stage.growth_flops


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (TrainingError("No room.", do="Make some."), "failed", "No room. Make some."),
        (ZeroDivisionError("why"), "failed", "ZeroDivisionError: why"),
    ],
)
def test_how_a_run_has_ended(plan, tmp_path, error, state, reason):
    def ended():
        with Follower(tmp_path, plan) as run:
            run.stage_start(plan.stages[0])
            raise error

    with pytest.raises(type(error)):
        ended()
    status = RunStatus.read(tmp_path / "status.json")
    assert (status.state, " ".join(status.reason.split())) == (state, reason)
    assert status.current.state == ("failed" if state == "failed" else "running")


def test_a_run_that_a_signal_has_stopped_is_interrupted(plan, tmp_path):
    error = TrainingError("Stopped by SIGTERM.")
    error.exit_code = 143
    with pytest.raises(TrainingError), Follower(tmp_path, plan):
        raise error
    assert RunStatus.read(tmp_path / "status.json").state == "interrupted"


def test_a_resumed_stage_goes_on_with_its_curve(plan, tmp_path):
    with Follower(tmp_path, plan) as run:
        run.stage_start(plan.stages[0])
        for iteration in range(1, 7):
            run.report(iteration, 8, float(iteration))
    run = Follower(tmp_path, plan)
    run.stage_start(plan.stages[0])
    run.evaluated([evaluation(4, 0.3)])
    run.report(4, 8, NAN)
    run.report(5, 8, 50.0)
    losses = run.status().current.losses
    assert [loss for _, loss in losses] == [1, 2, 3, 4, 50]
    assert [samples for samples, _ in losses] == [32, 64, 96, 128, 160]


def test_a_member_is_seen_beside_itself_alone(plan, tmp_path):
    alone = tmp_path / "alone"
    for index, changes in enumerate([{}, {"params": 3}]):
        manifest = alone / f"0{index + 1}_{'ab'[index]}" / "manifest.json"
        record(plan, index, mode="individual", **changes).write(manifest)
    run = Follower(tmp_path, plan, other=alone)
    run.stage_start(plan.stages[0])
    (beside,) = run.status().references
    assert (beside.label, beside.is_alone, beside.samples) == ("a alone", True, 1)
    assert beside.points == ((128, 0.25), (256, 0.5))
    run.stage_done(record(plan, 0))
    run.stage_start(plan.stages[1])
    assert [curve.label for curve in run.status().references] == ["source a"], "another model"
    (alone / "02_b" / "manifest.json").write_text("{")
    run.stage_start(plan.stages[1])
    assert [curve.label for curve in run.status().references] == ["source a"], "damaged"


def test_a_loss_that_is_no_number_is_no_point(plan, tmp_path):
    run = Follower(tmp_path, plan)
    run.stage_start(plan.stages[0])
    run.report(4, 8, math.inf)
    status = run.status()
    assert status.current.losses == ()
    json.dumps(status.to_json(), allow_nan=False)


def test_a_full_disk_does_not_end_a_run(plan, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with Follower(tmp_path, plan) as run:
        run.stage_start(plan.stages[0])
    assert not (tmp_path / "status.json").exists()


def test_a_run_gives_signs_of_life_while_nothing_happens(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("compt.report.watch.follower.WRITTEN_EVERY", 0.01)
    with Follower(tmp_path, plan) as run:
        first = RunStatus.read(tmp_path / "status.json")
        deadline = first.written + 10
        while (now := RunStatus.read(tmp_path / "status.json")).written == first.written:
            assert run.status().written < deadline
    assert now.progressed == first.progressed
