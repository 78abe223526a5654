"""Train with learning rates that follow from widths."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

import compt
from compt import describe
from compt.config import load_config
from compt.errors import ConfigError, WorkDirError
from compt.growth.width_rates import width_rates
from compt.testing.toy import TiedNet
from compt.training import loops
from compt.training.preflight import preflight
from compt.training.trial import check_rates_by_width
from tests.conftest import TOY
from tests.training.conftest import optimizer

FACTORS = {
    "student.head.weight": 0.5,
    "student.blocks.0.fc1.weight": 1.0,
    "student.blocks.{block}.fc1.weight": 0.25,
}
SCALED = {"student.head.weight": 0.5, "student.blocks.1.fc1.weight": 0.25}
CHAIN: dict[str, Any] = dict(
    copy.deepcopy(TOY),
    chain=copy.deepcopy(TOY["chain"][:2]),
    rates_by_width=dict(),
    grown=dict(lr_mult=0.5, new_lr_mult=2.0, optimizer_state=True),
)


class Died(BaseException):
    """The process is gone."""


def options(wrapper, stage) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    names = {param: name for name, param in stage.named_parameters()}
    return {
        names[param]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for param in group["params"]
    }


def train(folder: Path, config: Mapping[str, Any] = CHAIN, **others: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder, **others)


def weights(work: Path, stage: str) -> bytes:
    return (work / stage / "weights.safetensors").read_bytes()


def test_rates_are_scaled_and_rate_times_decay_is_not(make):
    """The projection head of the transferer, which no layout describes, keeps its rate."""
    stage = make((16, 2), (8, 1))
    plain, scaled = (
        options(optimizer(stage, **own), stage) for own in ({}, {"rate_factors": FACTORS})
    )
    assert scaled.keys() == plain.keys()
    for name, (lr, decay) in plain.items():
        factor = SCALED.get(name, 1.0)
        assert scaled[name] == (factor * lr, decay / factor), name
    assert {plain[name] for name in SCALED} == {(1e-2, 0.1)}


def test_parameters_of_one_rate_share_a_group_and_logs_show_the_rate_as_written(make):
    wrapper = optimizer(make((16, 2), (8, 1)), rate_factors=FACTORS)
    rates = [group["lr"] for group in wrapper.optimizer.param_groups]
    assert rates == [1e-2, 5e-3, 2.5e-3, 1e-2]  # matrices, and what does not decay
    assert wrapper.get_lr() == {"base_lr": [1e-2], "lr": rates}


def test_rates_of_a_paramwise_config_are_scaled_too(make):
    stage = make((16, 2), (8, 1))
    paramwise = dict(custom_keys={"head": dict(lr_mult=3.0, decay_mult=0.0), "fc1": {}})
    own = [dict(paramwise_cfg=paramwise, rate_factors=factors) for factors in ({}, FACTORS)]
    plain, scaled = (options(optimizer(stage, **one), stage) for one in own)
    assert plain["student.head.weight"] == (pytest.approx(3e-2), 0.0)
    for name, (lr, decay) in plain.items():
        factor = SCALED.get(name, 1.0)
        assert scaled[name] == (factor * lr, decay / factor), name


def test_a_tied_parameter_has_the_rate_of_the_name_that_a_layout_knows(make):
    """Which need not be the one that torch finds first."""
    stage = make(teacher=None)
    stage.student = TiedNet(16)
    wrapper = optimizer(stage, rate_factors={"student.head.weight": 0.5})
    assert options(wrapper, stage)["student.embed.weight"] == (5e-3, 0.2)


def test_without_factors_the_optimizer_is_as_ever(make):
    stage = make((16, 2), (8, 1))
    first, second = optimizer(stage), optimizer(stage, rate_factors={})
    first, second = (one.optimizer.state_dict()["param_groups"] for one in (first, second))
    assert first == second
    assert len(first) == 2


def test_decay_takes_off_the_same_whatever_the_rate(make):
    """With zero gradients AdamW multiplies by 1 - lr * decay = 0.999."""
    stage = make()
    initial = {name: p.detach().clone() for name, p in stage.named_parameters()}
    wrapper = optimizer(stage, rate_factors=FACTORS)
    for param in stage.parameters():
        param.grad = torch.zeros_like(param)
    wrapper.step()
    for name, param in stage.named_parameters():
        expected = initial[name] * (0.999 if param.ndim > 1 else 1.0)
        assert torch.allclose(param, expected, rtol=1e-6, atol=0), name


def wrapping(kind: str, **others: Any) -> dict[str, Any]:
    return dict(type="OptimWrapper", optimizer=dict(type=kind, **{"lr": 1e-2, **others}))


@pytest.mark.parametrize(
    ("optim_wrapper", "reason"),
    [
        (wrapping("SGD"), "those of SGD do"),
        (wrapping("SGD", lr=1e-6, momentum=0.9), "those of SGD do"),
        (wrapping("Muon"), "steps entry by entry.*; Muon does not"),
        (wrapping("Adam", weight_decay=1e-4), "Adam adds decay to the gradient"),
    ],
)
def test_optimizers_of_another_rule_are_refused(optim_wrapper, reason):
    with pytest.raises(ConfigError, match=reason):
        check_rates_by_width(optim_wrapper)


@pytest.mark.parametrize(
    "optim_wrapper",
    [
        wrapping("AdamW", lr=1e-5, weight_decay=0.1),
        wrapping("AdamW", amsgrad=True),
        wrapping("Adam"),
        wrapping("NAdam", weight_decay=0.1, decoupled_weight_decay=True),
        wrapping("RMSprop"),
    ],
)
def test_optimizers_of_adams_rule_are_taken(optim_wrapper):
    check_rates_by_width(optim_wrapper)


def test_an_optimizer_is_tried_before_training(toy):
    toy |= dict(rates_by_width=dict(), optim_wrapper=wrapping("SGD"))
    config = load_config(toy)
    with pytest.raises(ConfigError, match=r"optim_wrapper \(stage 'a'\).*those of SGD do"):
        preflight(config, compt.plan(config))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("by_width") / "run")


def test_a_run_has_the_rates_of_its_config(run):
    """The grown member's own rate, half of the one as written, is scaled once more."""
    own = Config.fromfile(run / "02_b" / "config.py").optim_wrapper
    assert own.optimizer.lr == 5e-4
    assert own.rate_factors == {
        "student.head.weight": 0.5,
        "student.blocks.{block}.fc1.weight": 0.5,
        "student.blocks.{block}.fc2.weight": 0.5,
    }
    assert "rate_factors" not in Config.fromfile(run / "01_a" / "config.py").optim_wrapper


def test_a_killed_run_goes_on_as_it_would_have(run, tmp_path):
    step = loops.TrainLoop._step

    def dying(self, batch):
        if self.runner.work_dir.endswith("02_b") and self._iter == 5:
            raise Died
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", dying)
        with pytest.raises(Died):
            train(tmp_path / "run")
    assert list((tmp_path / "run" / "02_b" / "checkpoints").iterdir())
    with pytest.raises(WorkDirError, match="rates_by_width"):
        train(tmp_path / "run", dict(CHAIN, rates_by_width=dict(base="b")), resume=True)
    train(tmp_path / "run", resume=True)
    for stage in ("01_a", "02_b"):
        assert weights(tmp_path / "run", stage) == weights(run, stage)


def test_the_base_is_trained_as_without_the_option_and_others_are_not(run, tmp_path):
    plain = train(tmp_path / "plain", dict(CHAIN, rates_by_width=None))
    assert weights(plain, "01_a") == weights(run, "01_a")
    assert weights(plain, "02_b") != weights(run, "02_b")


RATES = [4.0**-power for power in (5, 4, 3, 2)]


def final_loss(width: int, rate: float, *, by_width: bool) -> float:
    """Train a network to tell 200 random centres apart, and return the loss of its last steps."""
    torch.manual_seed(0)
    net = TiedNet(width, 2, dropout=0.0)
    base = describe(TiedNet(32, 2))
    factors = width_rates(describe(net), base, "base").factors if by_width else {}
    stage = nn.ModuleDict({"student": net})
    named = {f"student.{name}": factor for name, factor in factors.items()}
    wrapper = optimizer(stage, rate_factors=named)
    peaks = [rate / 1e-2 * group["lr"] for group in wrapper.optimizer.param_groups]
    generator = torch.Generator().manual_seed(0)
    centres, losses = torch.randn(200, 8, generator=generator), []
    for step in range(200):
        share = min(1, step / 20) * (1 + math.cos(math.pi * step / 200)) / 2
        for group, peak in zip(wrapper.optimizer.param_groups, peaks, strict=True):
            group["lr"] = share * peak
        label = torch.randint(200, (128,), generator=generator)
        points = centres[label] + 0.25 * torch.randn(128, 8, generator=generator)
        loss = F.cross_entropy(net(points), label % 8)
        wrapper.update_params(loss)
        losses.append(loss.item())
    return sum(losses[-30:]) / 30


@pytest.mark.slow
def test_one_rate_is_the_best_at_every_width():
    """As rates are written, the best falls with the width, by far more than a step of the grid."""

    def best(width: int, *, by_width: bool) -> float:
        return min(RATES, key=lambda rate: final_loss(width, rate, by_width=by_width))

    of_base = best(32, by_width=False)
    assert best(256, by_width=True) == of_base
    assert best(256, by_width=False) < of_base / 4
