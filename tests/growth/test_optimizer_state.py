"""How grown members are trained, at two rates and from states that go on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from mmengine.registry import OPTIMIZERS as OPTIMIZERS_OF_MMENGINE
from torch import nn

import compt
import tests.learner  # noqa: F401 - registers the grower
from compt import GrowthError
from compt.config import load_config
from compt.errors import ConfigError
from compt.testing.toy import ToyNet
from compt.training.optim import load_named_state, named_state, scale_steps
from compt.training.preflight import preflight
from compt.training.trial import check_entrywise
from compt.weights import read_state, save_tensors
from tests.growth.states import toy_loss

OPTIMIZERS = {
    "AdamW": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1),
    "fused": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1, fused=True),
    "Adam": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=0.1),
    "SGD": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1, momentum=0.9, nesterov=True),
}


def descended(optimizer, lr, masks=None, ratio=1.0, steps=6):
    """Return three tensors after some steps in a bowl where every entry moves on its own."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(6)]
    params = [nn.Parameter(draw.clone()) for draw in draws[:3]]
    running = OPTIMIZERS[optimizer](params, lr)
    if masks is not None:
        scale_steps(running, dict(zip(params, masks)), ratio)
    for step in range(steps):
        running.param_groups[0]["lr"] = lr * (1 - step / steps)
        running.zero_grad()
        sum(
            ((p - goal) ** 2 * (1 + goal**2)).sum() for p, goal in zip(params, draws[3:])
        ).backward()
        running.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("ratio", [0.2, 3.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_entries_follow_another_rate_exactly(optimizer, ratio):
    generator = torch.Generator().manual_seed(1)
    masks = [
        torch.rand(4, 3, generator=generator) < 0.5 for _ in range(2)
    ]  # the third tensor has none
    slow, fast = descended(optimizer, 0.02), descended(optimizer, 0.02 * ratio)
    mixed = descended(optimizer, 0.02, masks, ratio)
    for slow_param, fast_param, mixed_param, mask in zip(
        slow, fast, mixed, [*masks, torch.zeros(4, 3, dtype=torch.bool)]
    ):
        assert torch.allclose(
            mixed_param, torch.where(mask, fast_param, slow_param), rtol=1e-11, atol=1e-12
        )
        assert not torch.allclose(slow_param, fast_param, atol=1e-3)


def warmed(optimizer, ramp, masks=None):
    """Return a tensor after steps whose rate, or that of its masked entries alone, is a ramp."""
    generator = torch.Generator().manual_seed(0)
    start, goal = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    param, now = nn.Parameter(start.clone()), [0.0]
    running = OPTIMIZERS[optimizer]([param], 0.02)
    if masks is not None:
        scale_steps(running, dict(zip([param], masks)), lambda: now[0])
    for step, factor in enumerate(ramp):
        now[0] = factor
        rate = 0.02 * (1 - step / 10)
        running.param_groups[0]["lr"] = rate if masks is not None else rate * factor
        running.zero_grad()
        ((param - goal) ** 2 * (1 + goal**2)).sum().backward()
        running.step()
    return param.detach()


def test_a_warm_up_by_hand():
    """Plain gradient descent at a rate of 0.1 on a slope of 1."""
    param, ramp = nn.Parameter(torch.ones(2, dtype=torch.float64)), [0.0, 0.5, 1.0]
    now, running = [0.0], torch.optim.SGD([param], lr=0.1)
    scale_steps(running, {param: torch.tensor([False, True])}, lambda: now[0])
    seen = []
    for now[0] in ramp:
        param.grad = torch.ones_like(param)
        running.step()
        seen.append(param.tolist())
    assert seen == [pytest.approx(pair) for pair in ([0.9, 1.0], [0.8, 0.95], [0.7, 0.85])]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_entries_warm_up_alone(optimizer):
    """Weight decay and moments included, as if the rate had been another at each step."""
    ramp = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    mask = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    mixed = warmed(optimizer, ramp, [mask])
    usual, warm = warmed(optimizer, [1.0] * 6), warmed(optimizer, ramp)
    assert torch.allclose(mixed, torch.where(mask, warm, usual), rtol=1e-11, atol=1e-12)
    assert not torch.allclose(usual, warm, atol=1e-3)


def two_groups(model, *, swapped=False, **options):
    """AdamW with matrices and vectors apart, in either order."""
    groups = [[p for p in model.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False)]
    groups = [list(reversed(group)) for group in reversed(groups)] if swapped else groups
    return torch.optim.AdamW([{"params": group} for group in groups], **options)


def steps(model, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        toy_loss(model).backward()
        optimizer.step()


def test_a_state_goes_on_whatever_the_order_of_the_parameters(tmp_path):
    first, second = (ToyNet(8, 2).double() for _ in range(2))
    first_optimizer = two_groups(first, lr=1e-2)
    second_optimizer = two_groups(second, swapped=True, lr=1e-2)
    steps(first, first_optimizer, 3)
    second.load_state_dict(first.state_dict())
    state = named_state(first, first_optimizer)
    names = [name for name, _ in first.named_parameters()]
    assert state.keys() == {
        f"{key}:{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    save_tensors(state, tmp_path / "state.safetensors")
    load_named_state(second, second_optimizer, read_state(tmp_path / "state.safetensors"))
    second_state = named_state(second, second_optimizer)
    assert second_state.keys() == state.keys() and all(
        torch.equal(state[key], second_state[key]) for key in state
    )
    steps(first, first_optimizer, 2)
    steps(second, second_optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_what_has_no_state_starts_anew_at_the_optimizers_own_rate():
    model = ToyNet(8, 1).double()
    optimizer = two_groups(model, lr=1e-2)
    steps(model, optimizer, 3)
    without_head = {
        key: value
        for key, value in named_state(model, optimizer).items()
        if not key.endswith(":head.weight")
    }
    resumed = two_groups(model, lr=5e-3, betas=(0.8, 0.9))
    load_named_state(model, resumed, {**without_head, "exp_avg:unknown": torch.ones(3)})
    assert {group["lr"] for group in resumed.param_groups} == {5e-3}
    assert {group["betas"] for group in resumed.param_groups} == {(0.8, 0.9)}
    steps(model, resumed, 1)
    for name, param in model.named_parameters():
        assert resumed.state[param]["step"] == (1 if name == "head.weight" else 4), name


def test_fused_momentum_goes_on_beside_parameters_that_have_none():
    """As the projection of a transfer, which is in no member."""
    model, beside = ToyNet(8, 1).double(), nn.Parameter(torch.ones(3, dtype=torch.float64))
    plain = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    fused = torch.optim.SGD([*model.parameters(), beside], lr=1e-2, momentum=0.9, fused=True)
    steps(model, plain, 2)
    load_named_state(model, fused, named_state(model, plain))
    beside.grad = torch.full((3,), 2.0, dtype=torch.float64)
    fused.step()
    assert beside.tolist() == pytest.approx([0.98] * 3)


def refused(toy, *words):
    with pytest.raises(GrowthError) as caught:
        compt.plan(toy)
    assert caught.value.exit_code == 2
    assert all(word in str(caught.value) for word in ("'a' -> 'b'", *words)), str(caught.value)


def test_nothing_can_follow_a_grower_that_grows_no_tensors(toy):
    toy["chain"][1] |= dict(grower="scratch", grown=dict(optimizer_state=True))
    refused(toy, "'scratch'", "optimizer_state=False")
    compt.plan(toy, individual=True)
    toy["chain"][1]["grown"] = dict(lr_mult=0.5, new_lr_mult=1.0)
    compt.plan(toy)


def test_of_learned_weights_none_are_new(toy):
    toy["chain"][1] |= dict(grower="learner", grown=dict(new_lr_mult=2.0))
    refused(toy, "'learner'", "new_lr_mult")
    for options in (
        dict(lr_mult=2.0, new_lr_mult=2.0),
        dict(lr_mult=2.0),
        dict(optimizer_state=True),
    ):
        toy["chain"][1]["grown"] = options
        compt.plan(toy)


def test_every_hop_is_checked(toy):
    toy |= dict(grower="scratch", grown=dict(optimizer_state=True))
    with pytest.raises(compt.ConfigError) as caught:
        compt.plan(toy)
    for source, target in pairwise("abc"):
        assert f"'{source}' -> '{target}'" in str(caught.value)


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD", "RMSprop", "Adagrad"])
def test_steps_of_single_entries_can_be_scaled(kind):
    check_entrywise(wrapping(kind))


@OPTIMIZERS_OF_MMENGINE.register_module(name="TestNormalised", force=True)
class Normalised(torch.optim.SGD):
    """Steps of one length in all, as Muon's and LARS's are to some degree."""

    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                param.grad /= param.grad.norm()
        return super().step(closure)


def test_an_optimizer_that_looks_at_whole_matrices_is_refused(toy):
    with pytest.raises(ConfigError, match="Normalised does not step entry by entry"):
        check_entrywise(wrapping("TestNormalised"))
    toy |= dict(optim_wrapper=wrapping("TestNormalised"), grown=dict(new_warmup=0.5))
    del toy["chain"][2]
    config = load_config(toy)
    with pytest.raises(ConfigError, match=r"stage 'b'.*does not step entry by entry"):
        preflight(config, compt.plan(config))


def wrapping(kind):
    return dict(type="OptimWrapper", optimizer=dict(type=kind, lr=1e-2))
