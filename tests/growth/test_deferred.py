"""A model that is built without its large tensors gives each of them later, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt.growth.deferred import Deferral, DeferralError, settle_buffers


class Net(nn.Module):
    """What constructors do: whole and partial draws, views, factors, and values that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 48)  # weights are drawn, biases too
        self.table = nn.Embedding(40, 16, padding_idx=3)
        self.scaled = nn.Parameter(16**-0.5 * torch.randn(24, 16))
        self.square = nn.Parameter(torch.empty(24, 24))
        self.tied = nn.Linear(32, 48, bias=False)
        self.tied.weight = self.linear.weight
        self.small = nn.Parameter(torch.randn(4))
        self.register_buffer("ones", torch.ones(30, 30).tril_())
        nn.init.trunc_normal_(self.linear.weight, std=1.0)  # some are drawn again, and again
        nn.init.orthogonal_(self.square)
        with torch.no_grad():
            self.table.weight.mul_(3)[5:9].uniform_()
            self.scaled.copy_(self.scaled.clone().flip(0))
            self.mean = self.square.abs().mean().item()


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.detach()
        for name, tensor in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    }


@pytest.mark.parametrize("large", [1, 1024, 10**9])
def test_the_values_are_those_of_the_constructor_in_any_order(large):
    torch.manual_seed(5)
    model, after = Net(), torch.rand(3)
    torch.manual_seed(5)
    with (deferral := Deferral(large)):
        outline = Net()
    assert torch.equal(torch.rand(3), after)
    torch.manual_seed(77)
    state = torch.get_rng_state()
    expected, deferred = tensors(model), tensors(outline)
    assert any(tensor.is_meta for tensor in deferred.values()) == (large < 10**9)
    for name in reversed(expected):
        assert torch.equal(deferral.value(deferred[name]), expected[name]), name
        assert torch.equal(deferral.value(deferred[name]), expected[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    assert outline.mean == model.mean
    assert outline.tied.weight is outline.linear.weight


def test_buffers_are_made_at_once():
    with (deferral := Deferral(1)):
        outline = Net()
    assert outline.ones.is_meta
    settle_buffers(outline, deferral)
    assert torch.equal(outline.ones, torch.ones(30, 30).tril())


def test_without_draws_none_are_made_and_none_are_given():
    state = torch.get_rng_state()
    with (deferral := Deferral(1, draws=False)):
        layer = nn.Linear(4, 4)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(DeferralError, match="built without"):
        deferral.value(layer.weight)


def test_what_cannot_be_run_again_is_refused():
    with Deferral(100), pytest.raises(DeferralError, match="generator of its own"):
        torch.empty(100).normal_(generator=torch.Generator())
    with Deferral(100), pytest.raises(DeferralError, match="writes a small tensor"):
        torch.zeros(5).copy_(torch.ones(100)[:5])
