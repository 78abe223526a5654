"""Run a teacher less often, in another number format or compiled, and count what it took."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import compt
from compt.config import load_config
from compt.config.teachers import TeacherOptions
from compt.errors import ConfigError
from compt.planning.teaching import count_asked, count_not_cached
from compt.registry import TRANSFERERS
from compt.report.record import _spent
from compt.training.guard import LossMonitor
from tests.training.conftest import MSE, at, recorded, teacher_of
from tests.training.test_performance import Counting


@pytest.mark.parametrize(
    ("student", "teacher", "dtypes"),
    [
        ("fp32", "bf16", (torch.float32, torch.bfloat16)),
        ("bf16", "fp32", (torch.bfloat16, torch.float32)),
        ("bf16", None, (torch.bfloat16, torch.bfloat16)),
    ],
)
def test_the_teacher_has_a_precision_of_its_own(make, batch, student, teacher, dtypes):
    stage = make(performance=dict(precision=student), options=dict(precision=teacher)).train()
    seen = {}
    for model in (stage.student, teacher_of(stage)):
        layer = model.blocks[0].fc1
        layer.register_forward_hook(lambda m, _, out, model=model: seen.update({model: out.dtype}))
    stage(mode="loss", **batch)
    assert (seen[stage.student], seen[teacher_of(stage)]) == dtypes


def test_a_student_in_float32_gets_float32_of_a_teacher_in_bfloat16(make, batch):
    """A transferer need not know of number formats."""
    exact, rounded = (
        make(options=options)(mode="loss", **batch)["transfer/feature_mse"]
        for options in ({}, dict(precision="bf16"))
    )
    stage = make(options=dict(precision="bf16"))
    outputs = stage.teacher.outputs(batch, frozenset({"features"}))
    assert outputs["features"].dtype is torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert rounded.item() != exact.item()


def test_teacher_and_student_are_compiled_each_as_its_own_options_say(make, batch):
    for student, teacher, graphs in ((False, True, 1), (True, None, 2)):
        backend = Counting()
        as_option = {True: dict(backend=backend), False: False, None: None}
        stage = make(
            (8, 2),
            (8, 1),
            performance=dict(compile=as_option[student]),
            options=dict(compile=as_option[teacher]),
        )
        for _ in range(2):
            stage(mode="loss", **batch)
        assert (backend.graphs, backend.calls) == (graphs, 2 * graphs)


def test_between_two_of_its_iterations_the_teacher_is_not_run(make, batch):
    stage = make(options=dict(every=3))
    seen = recorded(stage)
    terms = ["transfer/feature_mse" in at(stage, i)(mode="loss", **batch) for i in range(7)]
    assert terms == [False, False, True, False, False, True, False]
    assert len(seen.teacher) == 2


def test_heads_have_a_gradient_also_where_the_teacher_is_not_run(make, batch):
    """DistributedDataParallel waits for one of every parameter."""
    stage = make(options=dict(every=2))
    at(stage, 0)(mode="loss", **batch)["loss"].backward()
    assert not stage.transfer.heads["features"].weight.grad.any()
    at(stage, 1)(mode="loss", **batch)["loss"].backward()
    assert stage.transfer.heads["features"].weight.grad.any()


def test_a_term_that_comes_and_goes_is_no_spike(make, batch):
    stage = make(transfer=dict(MSE, weight=20.0), options=dict(every=5))
    monitor, naive = LossMonitor(10.0, 100), LossMonitor(10.0, 100)
    for i in range(40):
        losses = at(stage, i, 40)(mode="loss", **batch)
        monitor.add(stage.judged(losses))
        naive.add(losses["loss"])
    assert monitor.look(40) is None
    assert naive.look(40) is not None, "the losses of this test would not have been spikes"


def test_what_is_not_finite_in_a_term_is_noticed_all_the_same(make, batch):
    stage = make(options=dict(every=2))
    with torch.no_grad():
        stage.transfer.heads["features"].weight.fill_(float("nan"))
    losses = at(stage, 1)(mode="loss", **batch)
    assert not torch.isfinite(stage.judged(losses))


def test_runs_and_seconds_are_counted_and_go_on_after_a_resume(make, batch):
    stage = make(options=dict(every=2))
    for i in range(4):
        at(stage, i)(mode="loss", **batch)
    usage = stage.teacher.usage()
    assert usage["teacher_iters"] == 2 and usage["teacher_seconds"] > 0
    twin = make(options=dict(every=2))
    twin.teacher.resume(usage)
    at(twin, 1)(mode="loss", **batch)
    assert twin.teacher.usage()["teacher_iters"] == 3
    assert twin.teacher.usage()["teacher_seconds"] > usage["teacher_seconds"]


def test_a_stage_that_an_older_version_began_says_nothing_of_its_teacher(make):
    stage = make()
    stage.teacher.resume({})
    assert stage.teacher.usage() == {}


# What it costs


@pytest.mark.parametrize(("every", "until", "expected"), [(1, 1.0, 8), (3, 1.0, 2), (2, 0.5, 2)])
def test_the_plan_charges_the_iterations_of_the_teacher(toy, every, until, expected):
    toy["transfer"], toy["teacher"] = dict(type="feature_mse", until=until), dict(every=every)
    stage = compt.plan(toy).stages[1]
    assert stage.teacher_iters == expected
    toy["teacher"] = {}
    toy["transfer"] = dict(type="none")
    without = compt.plan(toy).stages[1]
    assert stage.flops - without.flops == expected * 32 * stage.teacher_flops > 0


def test_a_record_charges_the_runs_that_were(toy):
    planned = compt.plan(toy).stages[1]
    whole, fewer = (_spent(planned, 8, 1, runs) for runs in (None, 3))
    assert whole == 32 * 9 * (planned.student_flops + planned.teacher_flops)
    assert fewer == 32 * (9 * planned.student_flops + 3 * planned.teacher_flops)


def test_iterations_are_asked_as_the_stage_runs_them(make, batch):
    transferer = TRANSFERERS.build(dict(MSE, until=0.6))
    for every in (1, 2, 3, 7):
        stage = make(transfer=dict(MSE, until=0.6), options=dict(every=every))
        num_terms = [len(at(stage, i, 10)(mode="loss", **batch)) for i in range(10)]
        assert num_terms.count(3) == count_asked(transferer, 10, every)


def test_a_cached_teacher_is_planned_to_run_for_one_pass_and_what_that_dropped():
    assert count_not_cached(40, 256, 32) == 8
    assert count_not_cached(5, 256, 32) == 5
    assert 8 < count_not_cached(40, 280, 32) < 24


# The config


def test_the_options_are_a_stages_or_the_chains(toy):
    toy["teacher"] = dict(every=2)
    toy["chain"][2]["teacher"] = dict(precision="bf16")
    assert [stage.teacher for stage in load_config(toy).stages] == [
        TeacherOptions(every=2),
        TeacherOptions(every=2),
        TeacherOptions(precision="bf16"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "teacher.every: 0"),
        (dict(every=2.5), "teacher.every: 2.5"),
        (dict(precision="fp8"), "teacher.precision: 'fp8'"),
        (dict(compile=dict(mod="x")), "'mod' is no option of torch.compile. Did you mean 'mode'"),
        (dict(cache=""), "'' is no folder"),
        (dict(cache=True, every=2), "give one of every and cache"),
        (dict(cach=True), "cach"),
    ],
)
def test_wrong_options_are_refused(toy, options, message):
    toy["teacher"] = options
    with pytest.raises(ConfigError) as error:
        load_config(toy)
    assert message in str(error.value)


def test_a_sharded_teacher_has_no_cache(toy):
    toy |= dict(teacher=dict(cache=True), parallel=dict(type="fsdp", teacher="sharded"))
    with pytest.raises(ConfigError, match=r"give parallel\.teacher='whole'"):
        load_config(toy)


def test_options_of_a_teacher_that_is_not_run_are_pointed_out(toy):
    toy |= dict(teacher=dict(every=2), transfer=dict(type="none"))
    assert "teacher=... of b; c is not used: their transfers have no weight." in (
        compt.plan(toy).warnings
    )
    toy["transfer"] = dict(type="feature_mse")
    assert not [line for line in compt.plan(toy).warnings if "teacher=" in line]


def test_the_teacher_is_in_no_state_dict(make):
    assert not isinstance(make().teacher, nn.Module)
