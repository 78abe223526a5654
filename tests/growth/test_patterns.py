"""Patterns are read as their notation says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt import LayoutError
from compt.growth.names import matcher, relations
from compt.growth.patterns import TensorAxes, parse

EMBED, MLP, QKV = ("embed",), ("mlp",), ("3", "heads", "head_dim")


def read(pattern: str, shape: tuple[int, ...], owner: nn.Module | None = None, **indices: str):
    return parse(pattern, torch.zeros(shape), owner or nn.Module(), indices, where="name")


@pytest.mark.parametrize(
    ("pattern", "shape", "expected"),
    [
        (
            "embed 3 patch patch",
            (8, 3, 2, 2),
            TensorAxes("weight", (EMBED, ("3",), ("patch",), ("patch",)), (1, 2, 3), (0,)),
        ),
        ("(3 heads head_dim) embed", (24, 8), TensorAxes("weight", (QKV, EMBED), (1,), (0,))),
        ("(3 heads head_dim) <- embed", (24, 8), TensorAxes("weight", (QKV, EMBED), (1,), (0,))),
        ("embed -> mlp", (8, 6), TensorAxes("weight", (EMBED, MLP), (0,), (1,))),
        ("vocab -> embed", (9, 8), TensorAxes("weight", (("vocab",), EMBED), (0,), (1,))),
        (
            "1 position embed",
            (1, 9, 8),
            TensorAxes("weight", (("1",), ("position",), EMBED), (0, 1), (2,)),
        ),
        (
            "position 3 embed",
            (9, 3, 8),
            TensorAxes("weight", (("position",), ("3",), EMBED), (0, 1), (2,)),
        ),
        ("embed", (8,), TensorAxes("weight", (EMBED,), (), (0,))),
        ("scale: embed", (8,), TensorAxes("scale", (EMBED,))),
        ("scale: embed mlp", (8, 6), TensorAxes("scale", (EMBED, MLP))),
        (
            "layer_norm_gain: embed",
            (8,),
            TensorAxes("layer_norm_gain", (EMBED,), norm_axis="embed"),
        ),
        (
            "rms_norm_gain: patches -> embed",
            (8,),
            TensorAxes("rms_norm_gain", (EMBED,), (), (0,), "patches"),
        ),
        (
            "layer_norm_gain: (4 embed)",
            (32,),
            TensorAxes("layer_norm_gain", (("4", "embed"),), norm_axis="embed"),
        ),
        ("", (), TensorAxes("weight", ())),
        ("", (1,), TensorAxes("weight", (("1",),))),
        ("constant:", (3, 2), TensorAxes("constant", (("3",), ("2",)))),
    ],
)
def test_notation(pattern, shape, expected):
    assert read(pattern, shape) == expected


def test_norms_are_known_by_the_class_of_their_owner():
    for owner, kind in ((nn.LayerNorm(8), "layer_norm"), (nn.RMSNorm(8), "rms_norm")):
        gain = parse("embed", owner.weight, owner, {}, where="weight")
        assert gain == TensorAxes(f"{kind}_gain", (EMBED,), norm_axis="embed")
    norm = nn.LayerNorm(8)
    assert parse("embed", norm.bias, norm, {}, where="bias").kind == "layer_norm_bias"


def test_numbers_of_a_name_can_be_used_in_axes():
    match = matcher("layers.{stage}.blocks.{block}.weight").match("layers.2.blocks.11.weight")
    assert match.groupdict() == {"stage": "2", "block": "11"}
    assert read("embed_{stage}", (8,), stage="2").groups == (("embed_2",),)
    assert matcher("a.b").match("a.bc") is None
    assert matcher("a.b").match("axb") is None


def test_factor_and_reader_are_the_first_that_the_module_has():
    module = nn.ModuleDict({"scale": nn.Linear(1, 1), "other_scale": nn.Linear(1, 1)})
    pattern = "embed <- mlp * gone.weight scale.weight other_scale.weight"
    assert relations(pattern, module, {})[1:] == ("scale.weight", None)
    assert relations("embed @ gone.weight scale.{part}", module, {"part": "bias"}) == (
        "embed ",
        None,
        "scale.bias",
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("factor: embed", "Unknown kind 'factor' in the pattern 'factor: embed'"),
        ("embed mlp", "has 2 dimensions, the tensor has shape \\[8\\]"),
    ],
)
def test_what_does_not_fit_is_refused(pattern, message):
    with pytest.raises(LayoutError, match=message):
        read(pattern, (8,))
