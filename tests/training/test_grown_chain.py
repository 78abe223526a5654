"""Train chains whose grown members have learning rates of their own.

They also go on from their source's optimizer state.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors.torch import load_file
from torch import Tensor

import compt
from compt import chain
from compt.errors import WorkDirError
from compt.growth.optimizer_state import grow_state, new_entries
from compt.testing.toy import ToyNet
from compt.training import initial_weights, loops
from compt.weights import load_weights
from tests.conftest import TOY
from tests.test_chain import python

GROWN = dict(TOY, grown=dict(lr_mult=0.5, new_lr_mult=2.0, optimizer_state=True))
STAGES = ("01_a", "02_b", "03_c")
FILES = {"new.safetensors", "optimizer.safetensors", "grown_optimizer.safetensors"}


def train(folder: Path, config: Mapping[str, Any] = TOY, **options: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder / "work", **options)


class Died(BaseException):
    """The process is gone."""


def die(*_: object, **__: object) -> None:
    raise Died


def until(stage: str, folder: Path, config: Mapping[str, Any], **options: Any) -> Path:
    """Train up to a stage, which has what it starts from and is not trained."""
    run = chain.run_stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            chain,
            "run_stage",
            lambda c, *others: die() if c.work_dir.endswith(stage) else run(c, *others),
        )
        with pytest.raises(Died):
            train(folder, config, **options)
    return folder / "work"


def files(work: Path) -> list[set[str]]:
    """Which of the files beside the weights each stage has."""
    return [{path.name for path in stage.iterdir()} & FILES for stage in sorted(work.glob("0*"))]


def stage_config(work: Path, stage: str) -> Config:
    """The Runner config that a stage was trained with."""
    return Config.fromfile(work / stage / "config.py")


def rates(work: Path) -> list[float]:
    return [
        stage_config(work, stage.name).optim_wrapper.optimizer.lr
        for stage in sorted(work.glob("0*"))
    ]


def hooks(work: Path) -> list[list[str]]:
    return [
        [hook["type"] for hook in stage_config(work, stage).get("custom_hooks", [])]
        for stage in STAGES
    ]


def same(work: Path, other: Path, stage: str, *names: str) -> bool:
    """Whether a stage has the same bytes in both: of its weights, or of these files."""
    return all(
        (work / stage / name).read_bytes() == (other / stage / name).read_bytes()
        for name in names or ("weights.safetensors",)
    )


def weights(work: Path, stage: str, name: str = "weights") -> dict[str, Tensor]:
    return load_file(work / stage / f"{name}.safetensors")


@contextmanager
def recorded(stage: str) -> Iterator[list[dict[str, Tensor]]]:
    """Collect the weights of a stage after each iteration."""
    step, states = loops.TrainLoop._step, []

    def recording(self, batch):
        step(self, batch)
        if self.runner.work_dir.endswith(stage):
            state = self.stage.student.state_dict()
            states.append({name: value.clone() for name, value in state.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", recording)
        yield states


def pair(work: Path, seed: int) -> tuple[ToyNet, ToyNet]:
    """The first member as trained, and the second as initialised."""
    source = ToyNet(8, 1)
    load_weights(source, work / "01_a" / "weights.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return source, ToyNet(16, 2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A chain without any of the options."""
    return train(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A chain with all of them."""
    return train(tmp_path_factory.mktemp("grown"), GROWN)


def test_only_grown_members_have_another_rate(grown, plain):
    assert rates(grown) == pytest.approx([1e-3, 5e-4, 5e-4])
    assert hooks(grown) == [[], ["ComptGrownHook"], ["ComptGrownHook"]]
    (hook,) = stage_config(grown, "02_b").custom_hooks
    assert hook.ratio == 4, "new entries learn at twice the member's rate, the others at half of it"
    assert rates(plain) == [1e-3] * 3
    assert hooks(plain) == [[]] * 3


def test_the_files_are_those_that_are_needed(grown, plain):
    new, ended, began = "new.safetensors", "optimizer.safetensors", "grown_optimizer.safetensors"
    assert files(grown) == [{ended}, {new, ended, began}, {new, began}]
    assert files(plain) == [set()] * 3


def test_alone_a_member_is_trained_as_without_the_options(plain, tmp_path):
    work = train(tmp_path, GROWN, individual=True)
    assert rates(work) == [1e-3] * 3
    assert hooks(work) == [[]] * 3
    assert files(work) == [set()] * 3
    assert (work / "01_a" / "weights.safetensors").read_bytes() == (
        plain / "01_a" / "weights.safetensors"
    ).read_bytes()


def test_the_first_member_is_trained_as_ever_and_the_others_are_not(grown, plain):
    assert [same(grown, plain, stage) for stage in STAGES] == [True, False, False]
    assert same(grown, plain, "02_b", "grown.safetensors")


def test_a_relative_rate_is_the_rate(toy, tmp_path):
    """As if the member had been given it, to the bit.

    A new_lr_mult that is the same is no rate of its own.
    """
    del toy["chain"][2]
    toy["chain"][1]["optim_wrapper"] = dict(optimizer=dict(lr=5e-4))
    absolute = train(tmp_path / "absolute", toy)
    del toy["chain"][1]["optim_wrapper"]
    toy["chain"][1]["grown"] = dict(lr_mult=0.5, new_lr_mult=0.5)
    relative = train(tmp_path / "relative", toy)
    assert rates(relative) == rates(absolute) == [1e-3, 5e-4]
    assert same(absolute, relative, "02_b")
    assert files(relative) == [set()] * 2


def test_a_rate_by_length_is_the_rate(toy, tmp_path):
    """8 of 32 iterations alone: half way between an eighth and a half, in octaves."""
    del toy["chain"][2]
    toy["individual"] = dict(iters=32)
    toy["chain"][1]["grown"] = dict(lr_mult={0.125: 0.5, 0.5: 0.125}, new_lr_mult=1.0)
    work = until("02_b", tmp_path, toy)
    assert rates(work) == pytest.approx([1e-3, 2.5e-4])
    (hook,) = stage_config(work, "02_b").custom_hooks
    assert hook.ratio == pytest.approx(4)
    until("02_b", tmp_path, toy, resume=True)


def test_new_entries_are_those_of_the_stages_grower_and_learn_apart(plain, toy, tmp_path):
    del toy["chain"][2]
    toy["chain"][1]["grown"] = dict(new_lr_mult=1e-6)
    work = train(tmp_path, toy)
    masks = weights(work, "02_b", "new")
    expected = new_entries(*pair(work, seed=1), toy["grower"], seed=1)
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    assert files(work) == [set(), {"new.safetensors"}]
    began, ended = weights(work, "02_b", "grown"), weights(work, "02_b")
    usual = weights(plain, "02_b")
    for name, mask in masks.items():
        new_began, old_began = began[name][mask], began[name][~mask]
        new_ended, old_ended = ended[name][mask], ended[name][~mask]
        assert torch.allclose(new_ended, new_began, rtol=0, atol=1e-7), name
        if mask.any():
            usual_ended = usual[name][mask]
            assert not torch.allclose(usual_ended, new_began, rtol=0, atol=1e-5), name
        if not mask.all():
            assert not torch.allclose(old_ended, old_began, rtol=0, atol=1e-5), name
    assert sum(mask.sum() for mask in masks.values()) > 100


def test_new_entries_warm_up_alone_and_the_others_at_once(toy, tmp_path, monkeypatch):
    """Over half of the stage, which is interrupted there and goes on alike."""
    del toy["chain"][2]
    toy["chain"][1]["grown"] = dict(new_warmup=0.5, warmup=0.0, optimizer_state=True)
    toy["param_scheduler"] = [
        dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.25),
        dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.25, end=1.0),
    ]
    with recorded("02_b") as states:
        work = train(tmp_path / "whole", toy)
    (hook,) = stage_config(work, "02_b").custom_hooks
    assert (hook.ratio, hook.warmup_iters) == (1, 4)
    (schedule,) = stage_config(work, "02_b").param_scheduler
    assert (schedule.type, schedule.begin, schedule.end) == ("CosineAnnealingLR", 0, 8)
    assert len(stage_config(work, "01_a").param_scheduler) == 2
    masks, began = weights(work, "02_b", "new"), weights(work, "02_b", "grown")
    for name, mask in masks.items():
        first, second = states[0][name], states[1][name]
        assert torch.equal(first[mask], began[name][mask]), "the first step is none"
        is_decayed = mask.ndim == 2  # these move where there is no gradient yet
        if is_decayed and not mask.all():
            assert not torch.equal(first[~mask], began[name][~mask]), name
        if is_decayed and mask.any():
            assert not torch.equal(second[mask], began[name][mask]), name
    with monkeypatch.context() as patch:
        step_of("02_b", 5)(patch)
        with pytest.raises(Died):
            train(tmp_path / "resumed", toy)
    assert same(work, train(tmp_path / "resumed", toy, resume=True), "02_b")


def test_the_state_is_grown_with_the_weights_and_goes_on(grown):
    """AdamW has taken 8 steps with the first member, and 8 more with the second.

    The second member's new block began anew.
    """
    first, second = weights(grown, "01_a", "optimizer"), weights(grown, "02_b", "optimizer")
    began = weights(grown, "02_b", "grown_optimizer")
    expected = grow_state(*pair(grown, seed=1), "lossless", first, seed=1)
    assert began.keys() == expected.keys()
    assert all(torch.equal(began[key], expected[key]) for key in began)
    third = weights(grown, "03_c", "grown_optimizer")
    for state, taken in (
        (first, {"0": 8}),
        (began, {"0": 8}),
        (second, {"0": 16, "1": 8}),
        (third, {"0": 16, "2": 8}),  # block 1 is a new copy of block 0, and block 2 was block 1
    ):
        steps = {
            key.partition(":")[2]: value.item()
            for key, value in state.items()
            if key.startswith("step:")
        }
        assert {name.split(".")[1] for name in steps if name.startswith("blocks.")} == set(taken)
        assert all(
            count == taken.get(name.split(".")[1], taken["0"]) for name, count in steps.items()
        )


def test_the_first_step_already_knows_the_momentum(toy, tmp_path):
    """At a rate of nearly zero the gradients are those of a run without it.

    After n steps 0.9^n of the momentum is left.
    """
    toy["optim_wrapper"] = dict(optimizer=dict(type="SGD", lr=1e-9, momentum=0.9, fused=False))
    toy["chain"][1]["iters"] = 4
    toy["chain"][2]["grown"] = dict(optimizer_state=True)
    without = until("03_c", tmp_path / "without", toy)
    toy["chain"][1]["grown"] = dict(optimizer_state=True)
    work = until("03_c", tmp_path / "with", toy)
    end_file, begin_file = "optimizer.safetensors", "grown_optimizer.safetensors"
    assert files(without) == [set(), {end_file}, {begin_file}]
    assert files(work) == [{end_file}, {begin_file, end_file}, {begin_file}]
    began, ended = weights(work, "02_b", "grown_optimizer"), weights(work, "02_b", "optimizer")
    other = weights(without, "02_b", "optimizer")
    assert (
        ended.keys()
        == other.keys()
        == {f"momentum_buffer:{name}" for name, _ in ToyNet(16, 2).named_parameters()}
    )
    for key, value in began.items():
        assert torch.allclose(ended[key] - other[key], 0.9**4 * value, rtol=1e-3, atol=1e-5), key
    assert began["momentum_buffer:head.weight"].norm() > 0.1


def test_momentum_goes_on_beside_a_projection_that_has_none(toy, tmp_path):
    toy |= dict(
        chain=toy["chain"][:2],
        transfer=dict(type="feature_mse"),
        grown=dict(optimizer_state=True),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-3, momentum=0.9)),
    )
    work = train(tmp_path, toy)
    assert files(work) == [{"optimizer.safetensors"}, {"grown_optimizer.safetensors"}]


def test_other_hooks_are_kept(toy, tmp_path):
    toy |= dict(custom_hooks=[dict(type="EMAHook")], grown=dict(new_lr_mult=2.0))
    config = compt.config.load_config(toy)
    plan = compt.plan(config).stages[1]
    grown, fresh = (
        chain.stage_config(
            config, config.stages[1], plan, tmp_path, init=None, teacher=None, grown=is_grown
        )
        for is_grown in (True, False)
    )
    assert [hook["type"] for hook in grown.custom_hooks] == ["EMAHook", "ComptGrownHook"]
    assert [hook["type"] for hook in fresh.custom_hooks] == ["EMAHook"]


def test_a_member_that_is_given_is_not_grown(plain, toy, tmp_path):
    toy["chain"][0]["init"] = str(plain / "01_a" / "export")
    toy["grown"] = dict(lr_mult=0.5)
    work = until("02_b", tmp_path, toy)
    assert (work / "01_a" / "grown.safetensors").is_file()
    assert rates(work) == [1e-3, 5e-4]


def test_a_stage_runs_alone_as_an_mmengine_config(grown, tmp_path):
    config = stage_config(grown, "02_b")
    config.work_dir, config.experiment_name = str(tmp_path), "alone"
    runner = Runner.from_cfg(config)
    runner.train()
    student, expected = runner.model.student.state_dict(), weights(grown, "02_b")
    assert all(torch.equal(student[name], expected[name]) for name in expected)


def test_the_options_cannot_be_changed_between_two_runs(grown):
    with pytest.raises(WorkDirError, match=r"grown\.lr_mult: 0\.5 -> 0\.7"):
        compt.train(
            {**GROWN, "grown": dict(GROWN["grown"], lr_mult=0.7)}, work_dir=grown, resume=True
        )


# Interrupted

SCRIPT = """
import sys
import compt, torch
from tests.kill_at import arm
from tests.training.test_grown_chain import GROWN
torch.set_num_threads(1)
arm(sys.argv[1])
compt.train(GROWN, work_dir=sys.argv[2], resume="resume" in sys.argv)
"""


def step_of(stage: str, iteration: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Die in this iteration of a stage."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        step = loops.TrainLoop._step

        def dying(self, batch):
            if self.runner.work_dir.endswith(stage) and self._iter == iteration:
                die()
            step(self, batch)

        patch.setattr(loops.TrainLoop, "_step", dying)

    return arm


def calling(module: ModuleType, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Die where a module first calls this."""
    return lambda patch: patch.setattr(module, name, die)


@pytest.mark.parametrize(
    "arm",
    [
        pytest.param(step_of("02_b", 1), id="before the first checkpoint"),
        pytest.param(calling(initial_weights, "grow_state"), id="between masks and state"),
        pytest.param(calling(initial_weights, "hand_over_weights"), id="between state and weights"),
        pytest.param(calling(chain, "save_tensors"), id="before the first stage's state"),
        pytest.param(
            calling(chain.StageRecord, "of_stage"), id="before the first stage's manifest"
        ),
    ],
)
def test_an_interrupted_chain_goes_on_alike(arm, grown, tmp_path, monkeypatch):
    """Up to the third stage: what that starts from says all of the second."""
    with monkeypatch.context() as patch:
        arm(patch)
        with pytest.raises(Died):
            train(tmp_path, GROWN)
    work = until("03_c", tmp_path, GROWN, resume=True)
    assert files(work) == files(grown)
    for stage, names in zip(STAGES, files(grown), strict=True):
        assert same(grown, work, stage, *names), stage
    assert same(grown, work, "02_b", "grown.safetensors", "weights.safetensors")
    assert same(grown, work, "03_c", "grown.safetensors")


def test_a_killed_chain_ends_the_same(tmp_path):
    """All in processes of their own.

    How many threads this one has differs by machine, and with it the last bit.
    """
    whole, work = tmp_path / "whole", tmp_path / "work"
    for point, folder, code, *options in (
        ("never", whole, 0),
        ("in the middle of a stage", work, -signal.SIGKILL),
        ("never", work, 0, "resume"),
    ):
        done = python("-c", SCRIPT, point, str(folder), *options)
        assert done.returncode == code, done.stderr
        if code:
            assert list((work / "02_b" / "checkpoints").glob("*.pt"))
    assert [same(whole, work, stage) for stage in STAGES] == [True] * 3
