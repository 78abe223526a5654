"""Growers know what an axis counts by its role, whatever a layout calls it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt import LAYOUTS, GrowthError, Layout, LayoutError, describe, grow


class Seeing(nn.Module):
    """Patches with learned positions, [B, 3, H, W] -> [B, 5]."""

    def __init__(self, width: int = 8, patch: int = 4, height: int = 2, columns: int = 3) -> None:
        super().__init__()
        self.grid = (height, columns)
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(height * columns, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)


class Named(Seeing):
    """The same, whose layout has other names."""


def patterns(patch: str, height: str, columns: str) -> dict[str, str]:
    return {
        "patches.*": f"embed <- 3 {patch} {patch}",
        "positions": f"({height} {columns}) -> embed",
        "norm.*": "embed",
        "head.*": "classes <- embed",
    }


class SeeingLayout(Layout):
    patterns = patterns("patch", "height", "width")

    def sizes(self, module):
        return dict(zip(("height", "width"), module.grid, strict=True))


class NamedLayout(Layout):
    patterns = patterns("tile", "rows_0", "stream")
    roles = {"tile": "pixels", "rows": "places", "stream": "places"}

    def sizes(self, module):
        return dict(zip(("rows_0", "stream"), module.grid, strict=True))


class Voices(nn.Module):
    """Tokens choose ``top`` of a number of MLPs, whose weights sum to 1: [N, D] -> [N, D]."""

    def __init__(self, voices: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.router = nn.Linear(6, voices, bias=False)
        self.up = nn.Parameter(torch.randn(voices, 10, 6))
        self.down = nn.Parameter(torch.randn(voices, 6, 10))

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        weight_NK, index_NK = self.router(x_ND).topk(self.top)
        inner = torch.einsum("nd,nkmd->nkm", x_ND, self.up[index_NK]).relu()
        made = torch.einsum("nkm,nkdm->nkd", inner, self.down[index_NK])
        return (weight_NK.softmax(-1)[..., None] * made).sum(1)


class VoicesLayout(Layout):
    patterns = {
        "router.*": "voices <- embed",
        "up": "voices mlp <- embed",
        "down": "voices embed <- mlp",
    }
    roles = {"voices": "fixed"}
    chosen = {"voices": "top"}
    whole = frozenset({"embed"})

    def sizes(self, module):
        return {"top": module.top}

    def probe(self, module, generator):
        x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
        return {"output": module(x)}


class Choir(nn.Module):
    """A model with Voices as a child."""

    def __init__(self, voices: int, top: int) -> None:
        super().__init__()
        self.voices = Voices(voices, top)


class ChoirLayout(Layout):
    parts = ("voices",)

    def probe(self, module, generator):
        return VoicesLayout().probe(module.voices, generator)


REGISTERED = {Seeing: SeeingLayout, Named: NamedLayout, Voices: VoicesLayout, Choir: ChoirLayout}


@pytest.fixture(autouse=True)
def layouts(monkeypatch):
    for cls, layout in REGISTERED.items():
        monkeypatch.setitem(LAYOUTS.module_dict, f"{__name__}.{cls.__qualname__}", layout)


SIZES = dict(patch=6, height=3, columns=2)


def test_an_image_is_resampled_by_roles_as_by_names():
    torch.manual_seed(0)
    source, named = Seeing().double(), Named().double()
    named.load_state_dict(source.state_dict())
    target, other = Seeing(16, **SIZES).double(), Named(16, **SIZES).double()
    other.load_state_dict(target.state_dict())
    growth, by_role = grow(source, target, "resample"), grow(named, other, "resample")
    for name, value in target.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert growth.reason.count("is resampled") == 3
    reason = growth.reason
    for axis, name in {"patch": "tile", "height": "rows_0", "width": "stream"}.items():
        reason = reason.replace(f"'{axis}'", f"'{name}'")
    assert by_role.reason == reason


def test_what_an_axis_counts_is_told_beside_how_it_grows():
    arch = describe(Named())
    assert arch.units == {"tile": "pixels", "rows_0": "places", "stream": "places"}
    assert {arch.roles[axis] for axis in arch.units} == {"fixed"}
    assert describe(Seeing()).units == {"patch": "pixels", "height": "places", "width": "places"}


def test_an_older_layout_calls_them_fixed(monkeypatch):
    monkeypatch.setattr(SeeingLayout, "roles", {"patch": "fixed", "height": "fixed"})
    assert describe(Seeing()).units == {"patch": "pixels", "height": "places", "width": "places"}


def test_a_hidden_width_is_no_place_of_an_image(monkeypatch):
    """Which it was taken for by its name, so that it could shrink."""
    monkeypatch.setattr(SeeingLayout, "roles", {"width": "hidden"})
    with pytest.raises(GrowthError, match="'width' would shrink from 3 to 2"):
        grow(Seeing(), Seeing(**SIZES), "resample")


@pytest.mark.parametrize("model", [Voices, Choir])
def test_chosen_units_have_any_name(model):
    torch.manual_seed(0)
    source, target = model(4, 2).double(), model(8, 4).double()
    axis = "voices" if model is Voices else "voices.voices"
    grower = dict(type="extend", axes={axis: "copy"}, noise=0.0)
    growth = grow(source, target, grower)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12
    few = grow(source, model(8, 2).double(), grower)
    assert few.reason == (
        f"'{axis}' grows from 4 to 8 by copies, of which 2 are chosen, after 2: exact at whole "
        "multiples of both alike"
    )


def test_chosen_units_need_a_size(monkeypatch):
    monkeypatch.setattr(VoicesLayout, "chosen", {"voices": "tops"})
    with pytest.raises(LayoutError, match=r"VoicesLayout\.chosen has \{'voices': 'tops'\}"):
        describe(Voices(4, 2))
