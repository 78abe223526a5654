"""Modules are described in one order, with the names of their children's axes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt import LAYOUTS, Layout, LayoutError, describe, grow
from compt.growth.axes import evaluating


class Attention(nn.Module):
    """Heads of 4 units with one norm over all of them."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4 * heads)
        self.norm = nn.LayerNorm(4 * heads)
        self.out = nn.Linear(4 * heads, 8)


class Tower(nn.Module):
    """A model with Attention as a child."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.attention = Attention(heads)
        self.head = nn.Linear(8, 5)


class AttentionLayout(Layout):
    patterns = {
        "fc.weight": "(heads head_dim) <- embed",
        "fc.bias": "(heads head_dim)",
        "norm.weight": "(heads head_dim)",
        "norm.bias": "(heads head_dim)",
        "out.weight": "embed <- (heads head_dim)",
        "out.bias": "embed",
    }

    def sizes(self, module):
        return {"heads": module.fc.out_features // 4, "feature": 7}


class TowerLayout(Layout):
    parts = ("attention",)
    patterns = {"head.weight": "feature <- embed", "head.bias": "feature"}

    def axis_aliases(self, module):
        return {"attention.embed": "embed", "attention.feature": "feature"}


@pytest.fixture(autouse=True)
def layouts():
    names = {f"{__name__}.Attention": AttentionLayout, f"{__name__}.Tower": TowerLayout}
    for name, layout in names.items():
        LAYOUTS.register_module(name=name, module=layout)
    yield
    for name in names:
        LAYOUTS.module_dict.pop(name)


def test_a_norm_over_folded_axes_of_a_child_is_described_and_grown():
    arch = describe(Tower(2))
    folded = "attention.heads+attention.head_dim"
    assert arch.params["attention.norm.weight"].norm_axis == folded
    assert arch.roles[folded] == "hidden"
    growth = grow(Tower(2), Tower(3))
    expected = (
        f"'attention.norm.weight' normalises over '{folded}', which grows: exact at multiples"
    )
    assert growth.reason.startswith(expected)
    # heads are copied at whole multiples, so that the norm's variance stays
    assert grow(Tower(2), Tower(4)).function_preserving


def test_roles_are_in_the_order_of_the_axes_whatever_the_hash_seed():
    """Growers draw their random maps in this order."""
    assert list(describe(Attention(2)).roles) == ["heads", "head_dim", "embed", "heads+head_dim"]


def test_a_size_that_no_tensor_of_a_child_has_is_not_that_of_the_aliased_axis():
    sizes = describe(Tower(2)).sizes
    assert (sizes["feature"], sizes["attention.feature"]) == (5, 7)


def test_sizes_are_found_in_several_passes():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.folded = nn.Parameter(torch.zeros(6))
            self.plain = nn.Parameter(torch.zeros(3))

    class LateLayout(Layout):
        patterns = {"folded": "(heads head_dim)", "plain": "head_dim"}

    LAYOUTS.register_module(name=f"{__name__}.{Late.__qualname__}", module=LateLayout)
    try:
        assert describe(Late()).sizes == {"head_dim": 3, "heads": 2}
        LateLayout.patterns = {"folded": "(heads head_dim)", "plain": "vocab"}
        with pytest.raises(LayoutError, match=r"'folded': the sizes of \['heads', 'head_dim'\]"):
            describe(Late())
    finally:
        LAYOUTS.module_dict.pop(f"{__name__}.{Late.__qualname__}")


def test_a_frozen_submodule_stays_in_eval_mode():
    model = Tower(2).train()
    model.attention.norm.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training and model.head.training
    assert not model.attention.norm.training
