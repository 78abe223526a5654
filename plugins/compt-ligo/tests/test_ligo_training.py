"""Maps that learn on a toy and from models of every paradigm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compt_ligo.expansion import Expansion, Pair
from compt_ligo.grower import schedule
from ligo_models import (
    Loss,
    Objective,
    clip,
    clip_loss,
    llama,
    llama_loss,
    mae,
    mae_loss,
    noisy,
    toy_loss,
    trained_toy,
    vit,
    vit_loss,
)
from torch import nn

import compt
from compt.testing.toy import ToyNet


def test_maps_learn_what_untrained_ones_cannot() -> None:
    """The loss after growth falls, and what is loaded is what was trained."""
    source = trained_toy(16, 1)
    start, target = ToyNet(24, 2), ToyNet(24, 2)
    compt.grow(source, start, dict(type="ligo", steps=0))
    objective = Objective(target, toy_loss)
    compt.grow(source, target, dict(type="ligo", steps=30, lr=1e-2), objective=objective)
    assert len(objective.losses) == 30
    untrained, trained = (toy_loss(module.eval()).item() for module in (start, target))
    assert objective.losses[0] == pytest.approx(untrained, rel=1e-5)
    assert trained < 0.7 * untrained
    assert trained <= objective.losses[-1]


@pytest.mark.parametrize("steps", [1, 2, 11])
def test_the_objective_is_called_once_a_step(steps: int) -> None:
    """No more, no fewer."""
    target = ToyNet(24, 2)
    objective = Objective(target, toy_loss)
    compt.grow(ToyNet(16, 1), target, dict(type="ligo", steps=steps), objective=objective)
    assert len(objective.losses) == steps


def test_the_first_step_is_as_long_as_the_rate_says() -> None:
    """AdamW without decay moves each entry of a map, for readers and writers, by lr / sqrt(S)."""
    source, target = trained_toy(16, 1).double(), ToyNet(24, 1).double()
    start = ToyNet(24, 1).double()
    with torch.no_grad():
        source.embed.bias.copy_(torch.eye(16)[0])  # so that the grown bias is a column of the map
    compt.grow(source, start, dict(type="ligo", steps=0))
    compt.grow(
        source, target, dict(type="ligo", steps=1, lr=1e-3), objective=Objective(target, toy_loss)
    )
    moved = (target.embed.bias - start.embed.bias).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3 / 16**0.5), rtol=1e-3, atol=0)
    assert (target.head.weight != start.head.weight).all()
    assert torch.equal(target.head.bias, source.head.bias)


def test_every_step_follows_the_schedule() -> None:
    """A constant slope moves its map by the sum of the rates, and the other maps not at all."""
    source, target = ToyNet(16, 1).double(), ToyNet(24, 1).double()
    start = ToyNet(24, 1).double()
    with torch.no_grad():
        source.embed.bias.copy_(torch.eye(16)[0])
    compt.grow(source, start, dict(type="ligo", steps=0))
    compt.grow(
        source,
        target,
        dict(type="ligo", steps=20, lr=1e-3),
        objective=lambda p: p["embed.bias"].sum(),
    )
    total = sum(schedule(step, 20) for step in range(20)) * 1e-3 / 16**0.5
    moved = start.embed.bias - target.embed.bias
    torch.testing.assert_close(moved, torch.full_like(moved, total), rtol=1e-4, atol=0)
    assert torch.equal(target.head.weight, start.head.weight)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Loss]] = {
    "llama": (lambda: llama(32, 2, 2, 1, 48), lambda: llama(48, 3, 3, 1, 80), llama_loss),
    "grouped llama": (lambda: llama(32, 1, 4, 2, 48), lambda: llama(96, 3, 6, 3, 64), llama_loss),
    "clip": (lambda: clip(32, 1, features=24), lambda: clip(48, 3, features=32), clip_loss),
    "clip with layer scale": (
        lambda: clip(32, 2, features=24, ls_init_value=0.1),
        lambda: clip(80, 2, features=24, ls_init_value=0.1),
        clip_loss,
    ),
    "mae": (lambda: mae(32, 1, 16, 1), lambda: mae(48, 2, 32, 3), mae_loss),
    "vit": (lambda: vit(32, 2), lambda: vit(80, 3), vit_loss),
}


@pytest.mark.parametrize("case", MODELS)
def test_gradients_reach_every_map(case: str) -> None:
    """At non-multiples of width, depth and heads, from the first step."""
    small, large, loss = MODELS[case]
    source, target = noisy(small(), 0.05), large()
    pair, generator = (
        Pair(compt.describe(source), compt.describe(target)),
        torch.Generator().manual_seed(0),
    )
    bundles = pair.bundles()
    maps = {
        key: value.float().requires_grad_()
        for key, value in pair.maps(bundles, 0.5, generator).items()
    }
    assert len(maps) > 4
    objective = Objective(target, loss)
    objective(
        Expansion(bundles, compt.tensors_of(source), compt.tensors_of(target), torch.float32)(maps)
    ).backward()
    dead = [key for key, value in maps.items() if value.grad is None or not value.grad.any()]
    assert not dead


@pytest.mark.parametrize("case", MODELS)
def test_every_paradigm_learns(case: str) -> None:
    """The loss falls in a few steps, the report is complete, and all parameters go on learning."""
    small, large, loss = MODELS[case]
    source, target = noisy(small(), 0.05), large()
    objective = Objective(target, loss)
    growth = compt.grow(source, target, dict(type="ligo", steps=8, lr=3e-3), objective=objective)
    assert len(objective.losses) == 8
    compt.grow(source, (start := large()), dict(type="ligo", steps=0))
    assert objective.losses[0] == pytest.approx(loss(start.eval()).item(), rel=1e-5)
    assert loss(target).item() < objective.losses[0]
    assert set(growth.params) == set(compt.tensors_of(target)) and not growth.dropped
    target.zero_grad()
    loss(target).backward()
    learning = {name: param for name, param in target.named_parameters() if param.requires_grad}
    assert not [
        name for name, param in learning.items() if param.grad is None or not param.grad.any()
    ]


def test_a_chain_charges_the_steps() -> None:
    """The plan counts the calls as training steps of the stages that grow."""
    sizes = ((8, 1), (16, 2), (24, 3))
    config = dict(
        paradigm=dict(type="toy", samples=64),
        custom_imports=dict(imports=["compt.testing.toy"]),
        chain=[
            dict(name=f"toy-{width}", model=dict(width=width, depth=depth), iters=4)
            for width, depth in sizes
        ],
        grower=dict(type="ligo", steps=3),
        train_dataloader=dict(batch_size=16),
    )
    assert [stage.growth_iters for stage in compt.plan(config).stages] == [0, 3, 3]
