"""What the report says, what is refused, and what stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ligo_models import Objective, copies, llama, noisy, toy_loss, trained_toy, vit, vit_loss
from torch import Tensor, nn

import compt
from compt.testing.toy import ToyNet


class Odd(nn.Module):
    """A module with all that needs care.

    It has a gain that a norm adds 1 to, a factor, integers, a constant, and a buffer that grows.
    """

    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gain = nn.Parameter(torch.linspace(0.0, 1.0, width, dtype=torch.float64))
        self.factor = nn.Parameter(torch.linspace(1.0, 2.0, width, dtype=torch.float64))
        self.kernel = nn.Parameter(
            torch.arange(12.0 * width, dtype=torch.float64).reshape(3, 2, 2, width)
        )
        self.blocks = nn.ModuleList(nn.Module() for _ in range(depth))
        for index, block in enumerate(self.blocks):
            block.register_buffer("count", torch.tensor([2**53 + 1 + index]))  # no float64 holds it
            block.register_buffer("order", torch.arange(width))
        self.register_buffer("fixed", torch.ones(2), persistent=False)
        self.register_buffer("mean", torch.linspace(3.0, 4.0, width, dtype=torch.float64))


@compt.LAYOUTS.register_module(name=f"{__name__}.Odd")
class OddLayout(compt.Layout):
    """Named axes of Odd."""

    patterns = {
        "norm.weight": "embed",
        "norm.bias": "embed",
        "gain": "rms_norm_gain_offset: embed",
        "factor": "scale: embed",
        "kernel": "3 2 2 embed",
        "blocks.{block}.count": "1",
        "blocks.{block}.order": "embed",
        "mean": "embed",
    }


def odd(steps: int) -> tuple[nn.Module, nn.Module, compt.Growth, list[set[str]]]:
    """Grow an Odd of 2 units to 4, and one block to two.

    The last value holds the names that the objective was given at each call.
    """
    source, target, asked_names = Odd(2), Odd(4, 2), list[set[str]]()

    def objective(params: Mapping[str, Tensor]) -> Tensor:
        asked_names.append(set(params))
        return sum((value.square().sum() for value in params.values()), torch.zeros(()))

    growth = compt.grow(source, target, dict(type="ligo", steps=steps), objective=objective)
    return source, target, growth, asked_names


def test_gains_factors_kernels_and_buffers_are_tiled() -> None:
    """At the start every unit is its source unit, whatever the tensor's rank and kind."""
    source, target, growth, _ = odd(0)
    for name in ("gain", "factor", "mean"):
        old, new = (
            source.get_parameter(name) if name != "mean" else source.mean,
            compt.tensors_of(target)[name],
        )
        torch.testing.assert_close(new, old.detach().repeat(2), rtol=1e-15, atol=1e-15)
    assert torch.equal(target.kernel, source.kernel.repeat(1, 1, 1, 2))
    assert growth.dropped == ("blocks.0.order",)
    assert growth.reason.startswith("nothing of the target is made from 'blocks.0.order'")


def test_the_offset_of_a_gain_grows_with_it() -> None:
    """A map M that is no tiling gives 1 + gain' = M (1 + gain)."""
    from compt_ligo.expansion import Expansion, Pair

    source, target = Odd(2), Odd(4)
    pair = Pair(compt.describe(source), compt.describe(target))
    bundles = [bundle for bundle in pair.bundles() if bundle.names == ("gain",)]
    ones = torch.ones(4, 2, dtype=torch.float64)
    expand = Expansion(bundles, compt.tensors_of(source), compt.tensors_of(target), torch.float64)
    assert expand({("embed", "writes"): ones})["gain"].tolist() == [2.0] * 4


def test_integers_and_constants_are_never_mapped() -> None:
    """Integers are copied where their shape stays, and else, as constants, left as they are."""
    _, target, growth, _ = odd(3)
    assert [int(block.count) for block in target.blocks] == [2**53 + 1] * 2
    assert growth.params["blocks.1.count"] == "copied"
    assert growth.params["blocks.1.order"] == growth.params["fixed"] == "initialised"
    assert target.blocks[1].order.tolist() == [0, 1, 2, 3]


def test_the_objective_is_given_the_parameters_alone() -> None:
    """It gets those that grow and those that are copied, and no buffers."""
    _, target, _, asked_names = odd(3)
    assert asked_names == [{name for name, _ in target.named_parameters()}] * 3


def test_equal_sizes_are_copied_bit_by_bit_and_ask_nothing() -> None:
    """No objective is needed, or called."""
    source = noisy(ToyNet(16, 3))
    target, asked = ToyNet(16, 3), Objective(ToyNet(16, 3), toy_loss)
    growth = compt.grow(source, target, "ligo", objective=asked)
    assert asked.losses == []
    assert set(growth.params.values()) == {"copied"} and growth.function_preserving
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    compt.grow(source, ToyNet(16, 3), "ligo")


def test_what_does_not_grow_is_copied_bit_by_bit() -> None:
    """That is the bias of a wider net's head, and all outside the stack of a deeper net."""
    wide = compt.grow(
        trained_toy(16, 1), (target := ToyNet(24, 1)), "ligo", objective=Objective(target, toy_loss)
    )
    assert [name for name, status in wide.params.items() if status == "copied"] == ["head.bias"]
    deep = compt.grow(
        trained_toy(16, 1), (target := ToyNet(16, 2)), "ligo", objective=Objective(target, toy_loss)
    )
    assert all(
        (status == "copied") == (not name.startswith("blocks"))
        for name, status in deep.params.items()
    )


def test_trained_maps_do_not_claim_to_keep_the_function() -> None:
    """Untrained ones do where it is true, and say where it is not."""
    target = ToyNet(32, 2)
    trained = compt.grow(
        trained_toy(16, 2),
        target,
        dict(type="ligo", steps=2),
        objective=Objective(target, toy_loss),
    )
    assert not trained.function_preserving and trained.reason == "the maps were trained for 2 steps"
    start = compt.grow(noisy(ToyNet(16, 2)), ToyNet(24, 2), dict(type="ligo", steps=0))
    assert "'norm.weight' normalises over 'embed': exact at multiples of 16 only" in start.reason


def test_tied_names_are_shared() -> None:
    """The head of a tied Llama, whose owner takes the write map."""
    source, target = (llama(*sizes) for sizes in ((32, 1, 2, 1, 48), (48, 2, 3, 1, 64)))
    growth = compt.grow(source, target, dict(type="ligo", steps=0))
    assert growth.params["lm_head.weight"] == "shared" and not growth.dropped
    assert target.lm_head.weight is target.model.embed_tokens.weight
    assert torch.equal(target.lm_head.weight, source.lm_head.weight.repeat(1, 2)[:, :48])


# Options and refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(steps=-1), "steps=-1 is no whole number"),
        (dict(steps=1.5), "steps=1.5 is no whole number"),
        (dict(steps=True), "steps=True is no whole number"),
        (dict(lr=0), "lr=0 is no number above 0"),
        (dict(lr=float("nan")), "lr=nan"),
        (dict(lr=float("inf")), "lr=inf"),
        (dict(lr="1e-3"), "lr='1e-3'"),
        (dict(spread=-0.1), "spread=-0.1 is no number from 0 on"),
        (dict(steps=-1, lr=-1.0), r"(?s)steps=-1.*lr=-1.0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    """All faults at once, and also where the grower is named in a config."""
    from compt_ligo import Ligo

    with pytest.raises(compt.ConfigError, match=message):
        Ligo(**options)
    with pytest.raises(compt.ConfigError, match="|".join(options)):
        compt.GROWERS.build(dict(type="ligo", **options))


def test_calls_are_announced() -> None:
    """There are as many as steps, and none for untrained maps."""
    assert compt.GROWERS.build(dict(type="ligo", steps=7)).objective_calls == 7
    assert compt.GROWERS.build(dict(type="ligo", steps=0)).objective_calls == 0


def test_without_an_objective_there_is_nothing_to_learn_from() -> None:
    """The message says what to do, and the target stays as it was."""
    target = ToyNet(24, 2)
    values = copies(target)
    with pytest.raises(compt.GrowthError, match=r"(?s)12 steps.*chain.*objective=.*steps=0"):
        compt.grow(ToyNet(16, 2), target, dict(type="ligo", steps=12))
    assert all(torch.equal(values[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_it(bad: float) -> None:
    """With the step and the rate, and nothing written."""
    target = ToyNet(24, 2)
    values, losses = copies(target), iter([1.0, 1.0, bad])

    def objective(params: Mapping[str, Tensor]) -> Tensor:
        return params["head.weight"].sum() * 0 + next(losses)

    with pytest.raises(compt.GrowthError, match=r"(?s)step 2 of 5.*lr=0\.25"):
        compt.grow(ToyNet(16, 2), target, dict(type="ligo", steps=5, lr=0.25), objective=objective)
    assert all(torch.equal(values[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize(
    ("small", "large", "message"), [((16, 2), (8, 2), "shrink"), ((16, 2), (16, 1), "shrink")]
)
def test_check_refuses_what_shrinks(
    small: tuple[int, int], large: tuple[int, int], message: str
) -> None:
    """From the architectures alone, as plans do."""
    with torch.device("meta"):
        source, target = compt.describe(ToyNet(*small)), compt.describe(ToyNet(*large))
    with pytest.raises(compt.GrowthError, match=message):
        compt.GROWERS.build(dict(type="ligo")).check(source, target)


# What stays as it was


def test_neither_module_nor_the_random_state_changes() -> None:
    """Values, gradients, modes and what learns stay.

    ``grow`` itself is called, as compt.grow then loads the values.
    """
    source, target = trained_toy(16, 1), ToyNet(24, 2)
    values, state = (copies(source), copies(target)), torch.get_rng_state()
    source.zero_grad(), source.head.bias.requires_grad_(False)
    loss = Objective(target, toy_loss)
    growth = compt.GROWERS.build(dict(type="ligo", steps=3)).grow(
        source,
        target,
        source_arch=compt.describe(source),
        target_arch=compt.describe(target),
        generator=torch.Generator().manual_seed(0),
        objective=lambda params: loss(params) + sum(param.sum() for param in target.parameters()),
    )
    assert torch.equal(torch.get_rng_state(), state)
    for module, old in zip((source, target), values, strict=True):
        assert all(torch.equal(old[name], tensor) for name, tensor in module.state_dict().items())
        assert all(param.grad is None for param in module.parameters())
    assert not source.head.bias.requires_grad and source.head.weight.requires_grad
    assert not any(value.requires_grad for value in growth.tensors.values())
    storages = {t.data_ptr() for module in (source, target) for t in module.state_dict().values()}
    assert not storages & {value.data_ptr() for value in growth.tensors.values()}


def test_one_seed_gives_one_result() -> None:
    """And another seed another one."""
    source, grown = trained_toy(16, 1), []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        target = ToyNet(32, 2)
        compt.grow(
            source,
            target,
            dict(type="ligo", steps=4),
            seed=seed,
            objective=Objective(target, toy_loss),
        )
        grown.append(torch.cat([param.detach().flatten() for param in target.parameters()]))
    assert torch.equal(grown[0], grown[1])
    assert not torch.equal(grown[0], grown[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_values_have_the_dtype_of_the_target(dtype: torch.dtype) -> None:
    """The objective gets no other, and values of a narrow model are rounded at the end alone."""
    source, target = vit(32, 1).to(dtype), vit(48, 2).to(dtype)
    wide = vit(48, 2)
    objective = Objective(target, vit_loss)
    compt.grow(source, target, dict(type="ligo", steps=2), objective=objective)
    assert {value.dtype for value in objective.params.values()} == {dtype}
    if dtype == torch.bfloat16:
        compt.grow(source, target, dict(type="ligo", steps=0))
        compt.grow(copy.deepcopy(source).float(), wide, dict(type="ligo", steps=0))
        assert all(
            torch.equal(tensor, wide.state_dict()[name].to(dtype))
            for name, tensor in target.state_dict().items()
        )


class Fused(nn.Module):
    """q, k and v of grouped queries in one tensor, times a constant of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 2 * width)


class FusedLayout(compt.Layout):
    patterns = {"qkv.*": "(kv group 2 | kv 2 | kv 2) <- embed"}
    roles = {"kv": "hidden", "group": "hidden"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        return {"group": 2}


def test_concatenated_axes_are_refused_by_name() -> None:
    compt.LAYOUTS.register_module(name=f"{__name__}.Fused", module=FusedLayout)
    try:
        with pytest.raises(
            compt.GrowthError, match=r"'qkv\.weight', which concatenates kv group 2"
        ):
            compt.grow(Fused(4), Fused(8), dict(type="ligo", steps=0))
    finally:
        compt.LAYOUTS.module_dict.pop(f"{__name__}.Fused")
