"""Hooks of mmengine: what they do to a stage's end and weights, and which are refused."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.registry import HOOKS
from safetensors.torch import load_file
from torch import nn

import compt
from compt.errors import ConfigError, TrainingError
from compt.training.hook_effects import check_averages, check_effects, check_watched, replay
from compt.training.hook_state import hook_states
from compt.training.stage import stage_model

EMA = dict(type="EMAHook", momentum=0.1)
STOPPING = dict(type="EarlyStoppingHook", monitor="val/loss", patience=1, min_delta=100.0)


class Stop(Exception):
    pass


@HOOKS.register_module(name="RaiseAt")
class RaiseAt(Hook):
    at = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == RaiseAt.at:
            raise Stop


@HOOKS.register_module(name="EndAt")
class EndAt(Hook):
    """Asks for the end in the middle of a stage, as mmengine's loops allow it."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.train_loop.stop_training |= runner.iter + 1 == 5


@HOOKS.register_module(name="HalveAtTheEnd")
class HalveAtTheEnd(Hook):
    """Changes the weights behind the last evaluation, as PreciseBN does."""

    def after_train_epoch(self, runner):
        for param in stage_model(runner).student.parameters():
            param.data.mul_(0.5)


@HOOKS.register_module(name="HalveToMeasure")
class HalveToMeasure(Hook):
    """Puts other weights in to be measured, and the trained ones back or not."""

    def __init__(self, back: bool = True) -> None:
        self.back = back

    def before_val_epoch(self, runner):
        self.trained = {k: v.clone() for k, v in stage_model(runner).student.state_dict().items()}
        for param in stage_model(runner).student.parameters():
            param.data.mul_(0.5)

    def after_val_epoch(self, runner, metrics=None):
        if self.back:
            stage_model(runner).student.load_state_dict(self.trained)


@HOOKS.register_module(name="Rememberer")
class Rememberer(Hook):
    """Puts something into checkpoints."""

    def __init__(self, readable: bool = True) -> None:
        self.memory = [1, "a", torch.ones(2)] if readable else SimpleNamespace()
        self.loaded = None

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint["memory"] = self.memory

    def after_load_checkpoint(self, runner, checkpoint):
        Rememberer.loaded = checkpoint["memory"]


def single(toy, *hooks, iters=8, **keys):
    """Return a chain of one member with these hooks."""
    chain = [{**toy["chain"][0], "iters": iters}]
    return {**toy, "chain": chain, "custom_hooks": list(hooks), **keys}


def manifest(folder):
    return json.loads((folder / "01_a" / "manifest.json").read_text())


def measured(folder):
    return [point["metrics"]["val/loss"]["value"] for point in manifest(folder)["curve"]]


def exported_loss(folder, toy) -> float:
    """Return the held-out loss of what the stage has exported."""
    paradigm = compt.PARADIGMS.build(dict(toy["paradigm"]))
    model = paradigm.load(folder / "01_a" / "export").eval()
    batch = dict(zip(("x", "label"), paradigm.build_dataset("val").tensors, strict=True))
    batch = paradigm.prepare(batch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return paradigm.metrics(model, "val", [batch])["loss"].value


@pytest.fixture
def stopped_and_resumed(tmp_path):
    """Train to the end, and again with a stop in between; return both folders."""

    def train(config, at: int):
        config["custom_hooks"] = [*config["custom_hooks"], dict(type="RaiseAt")]
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        compt.train(config, work_dir=whole)
        RaiseAt.at = at
        try:
            with pytest.raises(Stop):
                compt.train(config, work_dir=parts)
        finally:
            RaiseAt.at = 0
        compt.train(config, work_dir=parts, resume=True)
        return whole, parts

    return train


def test_an_average_is_resumed_measured_and_delivered(toy, stopped_and_resumed):
    """And it is what the next member grows from, as that reads weights.safetensors."""
    config = single(toy, EMA, evaluations=4)
    whole, parts = stopped_and_resumed(config, 5)
    assert measured(whole) == measured(parts)
    states = [load_file(folder / "01_a" / "weights.safetensors") for folder in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert manifest(whole)["delivered"] == "EMAHook"
    assert exported_loss(whole, toy) == pytest.approx(measured(whole)[-1], abs=1e-6)


def test_an_average_of_a_student_with_a_teacher_leaves_the_teacher_alone(make):
    stage = make()
    twin = copy.deepcopy(stage)  # as EMAHook makes one
    assert twin.teacher is stage.teacher
    assert twin.paradigm is stage.paradigm
    own, others = dict(stage.named_parameters()), dict(twin.named_parameters())
    assert own.keys() == others.keys()
    assert not {p.data_ptr() for p in own.values()} & {p.data_ptr() for p in others.values()}
    twin.student.head.weight.data.zero_()
    assert stage.student.head.weight.any()


def test_without_an_average_the_last_weights_are_delivered(toy, tmp_path):
    compt.train(single(toy, dict(type="EndAt")), work_dir=tmp_path)
    content = manifest(tmp_path)
    assert (content["delivered"], content["iters"]) == ("last", 5)
    assert content["stopped"].startswith("a hook asked for it: stopped after 5 of 8")
    assert exported_loss(tmp_path, toy) == pytest.approx(measured(tmp_path)[-1], abs=1e-6)


def test_early_stopping_ends_a_stage_also_a_resumed_one(toy, stopped_and_resumed):
    hook = {**STOPPING, "patience": 2}
    whole, parts = stopped_and_resumed(single(toy, hook, iters=12, evaluations=6), 5)
    for folder in (whole, parts):
        assert manifest(folder)["iters"] == 6
        assert "EarlyStoppingHook: val/loss" in manifest(folder)["stopped"]
    assert measured(whole) == measured(parts)


def test_a_hook_sees_earlier_evaluations_again():
    hook = EarlyStoppingHook("val/loss", min_delta=0.0, patience=9)
    loop = SimpleNamespace(stop_training=False)
    runner = SimpleNamespace(hooks=[hook], train_loop=loop)
    curve = [dict(metrics={"val/loss": dict(value=value)}) for value in (3.0, 2.0, 2.5)]
    for _ in range(2):  # the second time the hook has seen them already, as after a rollback
        replay(runner, curve)
        assert (hook.best_score, hook.wait_count) == (2.0, 1)


def test_weights_that_hooks_change_behind_the_last_evaluation_are_measured_again(toy, tmp_path):
    compt.train(single(toy, dict(type="HalveAtTheEnd")), work_dir=tmp_path)
    assert len(measured(tmp_path)) == 2
    assert exported_loss(tmp_path, toy) == pytest.approx(measured(tmp_path)[-1], abs=1e-6)


def test_what_any_hook_puts_in_to_be_measured_is_delivered(toy, tmp_path):
    compt.train(single(toy, dict(type="HalveToMeasure")), work_dir=tmp_path)
    assert manifest(tmp_path)["delivered"] == "HalveToMeasure"
    assert exported_loss(tmp_path, toy) == pytest.approx(measured(tmp_path)[-1], abs=1e-6)


def test_a_hook_that_does_not_put_the_trained_weights_back_is_refused(toy, tmp_path):
    with pytest.raises(TrainingError, match="After the evaluation the weights are others"):
        compt.train(single(toy, dict(type="HalveToMeasure", back=False)), work_dir=tmp_path)


def test_what_hooks_remember_is_in_checkpoints(toy, stopped_and_resumed):
    stopped_and_resumed(single(toy, dict(type="Rememberer")), 5)
    assert Rememberer.loaded[:2] == [1, "a"]
    assert torch.equal(Rememberer.loaded[2], torch.ones(2))


def test_what_a_resumed_run_could_not_read_is_not_saved(toy, tmp_path):
    with pytest.raises(TrainingError, match=r"holds types.SimpleNamespace, which --resume"):
        compt.train(single(toy, dict(type="Rememberer", readable=False)), work_dir=tmp_path)


REFUSED = [
    (dict(type="CheckpointHook", save_best="val/loss"), "checkpoint=dict"),
    (dict(type="DistSamplerSeedHook"), "seed and the iteration"),
    (dict(type="ParamSchedulerHook"), "twice"),
    (dict(type="PrepareTTAHook", tta_cfg=dict(type="X")), "acts in tests"),
    (dict(type="NaiveVisualizationHook"), "acts in tests"),
    (dict(type="NPUProfilerHook"), "exit_after_profiling=False"),
    (dict(type="ProfilerHook"), "by_epoch counts epochs"),
    (dict(type="ProfilerHook", by_epoch=False, profile_times=9), "more than the stage's 8"),
    (dict(type="ProfilerHook", by_epoch=False, on_trace_ready=dict(type="x")), "type='x'"),
    (dict(type="LoggerHook"), "log_metric_by_epoch counts epochs"),
    (dict(type="EMAHook", begin_epoch=2), "begin_epoch counts epochs"),
    (dict(type="EMAHook", begin_iter=9), "begin_iter=9 lies behind the stage's 8"),
    (dict(type="EarlyStoppingHook", monitor="loss"), "monitor='loss' is no metric"),
    (dict(type="mmengine.EarlyStoppingHook", monitor="test/loss"), "'val/...'"),
]


@pytest.mark.parametrize(("hook", "fault"), REFUSED)
def test_hooks_that_a_stage_has_no_place_for_are_refused(hook, fault):
    with pytest.raises(ConfigError, match=fault):
        check_effects(hook, iters=8, splits=("val",))


@pytest.mark.parametrize("options", [dict(ema_type="Nope"), dict(momentum=2.0), dict(interval=0)])
def test_an_average_that_cannot_be_made_is_found(options):
    with pytest.raises((KeyError, AssertionError, RuntimeError, ZeroDivisionError)):
        check_effects(dict(type="EMAHook", **options), iters=8, splits=("val",))


def test_an_average_that_is_not_what_is_measured_is_refused():
    @HOOKS.register_module(name="OriginToo", force=True)
    class OriginToo(HOOKS.get("EMAHook")):
        evaluate_on_origin = True

    with pytest.raises(ConfigError, match="measures and delivers the average"):
        check_effects(dict(type="OriginToo"), iters=8, splits=("val",))


@pytest.mark.parametrize(
    "hook",
    [
        {**EMA, "priority": "ABOVE_NORMAL"},
        dict(type="EMAHook", begin_iter=8),
        STOPPING,
        dict(type="SyncBuffersHook"),
        dict(type="EmptyCacheHook", after_iter=True),
        dict(type="ProfilerHook", by_epoch=False, profile_times=8),
        dict(type="LoggerHook", log_metric_by_epoch=False),
    ],
)
def test_all_others_are_taken(hook):
    check_effects(hook, iters=8, splits=("val",))


def test_one_default_hook_may_be_replaced_by_its_like():
    check_effects(dict(type="ParamSchedulerHook"), iters=8, splits=("val",), is_default=True)


def test_two_averages_are_refused():
    check_averages([EMA, STOPPING])
    with pytest.raises(ConfigError, match="EMAHook and EMAHook: a stage delivers one"):
        check_averages([EMA, EMA])


@pytest.mark.parametrize(
    ("rule", "higher", "fault"),
    [("less", True, "rule='greater'"), ("greater", False, "rule='less'"), ("less", None, "")],
)
def test_the_side_that_a_hook_takes_for_better_is_the_metrics(rule, higher, fault):
    hook = EarlyStoppingHook("val/x", rule=rule)
    metrics = {"val/x": dict(value=1.0, higher_is_better=higher)}
    if not fault:
        check_watched(hook, metrics)
        return
    with pytest.raises(ConfigError, match=fault):
        check_watched(hook, metrics)


def test_a_metric_that_is_not_measured_is_named():
    with pytest.raises(ConfigError, match=r"watches 'val/x', which is not measured\.\s.*val/loss"):
        check_watched(EarlyStoppingHook("val/x", rule="less"), {"val/loss": {}})


@HOOKS.register_module(name="Counter")
class Counter(Hook):
    """Remembers what changes training, and does nothing about checkpoints."""

    def __init__(self) -> None:
        self.num_seen, self.scale = 0, nn.Linear(1, 1)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.num_seen += 1
        self.scale.weight.data.fill_(0.1 * self.num_seen)
        for group in runner.optim_wrapper.param_groups:
            group["weight_decay"] = self.scale.weight.item()


def test_plain_attributes_of_ones_own_hooks_are_resumed(toy, stopped_and_resumed):
    fast = dict(optimizer=dict(type="AdamW", lr=1e-2))
    whole, parts = stopped_and_resumed(single(toy, dict(type="Counter"), optim_wrapper=fast), 5)
    states = [load_file(folder / "01_a" / "weights.safetensors") for folder in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_is_not_plain_or_is_the_model_is_not_kept(make):
    hook, stage = Counter(), make()
    hook.model, hook.student, hook.file, hook.queue = stage, stage.student, object(), [object()]
    runner = SimpleNamespace(hooks=[EarlyStoppingHook("val/loss"), hook], model=stage)
    (state,) = hook_states(runner).values()
    assert state.keys() == {"num_seen", "scale"}


@HOOKS.register_module(name="Looker")
class Looker(Hook):
    seen: ClassVar = []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        Looker.seen.append(outputs[0]["logits"].shape)


def test_a_hook_sees_the_outputs_of_a_validations_batches(toy, tmp_path):
    Looker.seen.clear()
    compt.train(single(toy, dict(type="Looker"), evaluations=1), work_dir=tmp_path)
    assert Looker.seen == [(64, 10)]


def test_a_class_in_the_place_of_a_name_is_refused(toy):
    with pytest.raises(ConfigError, match=r"custom_hooks\.0\.type: .*is a class; write its name"):
        compt.plan(single(toy, dict(type=EarlyStoppingHook, monitor="val/loss")))
