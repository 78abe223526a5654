"""Patches and grids of other sizes, as a step of its own before any other grower."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compt import ConfigError, GrowthError, describe, grow
from compt.growers.resample import interpolated, pseudo_inverse
from compt.growth.optimizer_state import grow_state
from compt.testing import GrowerContract

pytest.importorskip("timm")

from tests.layouts.families import clip, dino, swin, trained, vit

IMAGES = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class TestResample(GrowerContract):
    grower = dict(type="resample", grower="clone")


def resized_patches(images, old, new):
    """Return images of whose patches each is resized by itself."""
    patches = images.unfold(2, old, old).unfold(3, old, old)  # [B, 3, rows, columns, old, old]
    flat = F.interpolate(patches.flatten(0, 3)[None], size=(new, new), mode="bilinear")[0]
    rows = flat.reshape(*patches.shape[:4], new, new).movedim(4, 3).flatten(2, 3)
    return rows.flatten(3, 4)


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
def test_larger_patches_see_in_larger_images_what_smaller_ones_saw(grower):
    """The pseudo-inverse is exact there, whatever grows the widths; elsewhere it is nearest."""
    width = 48 if grower == "lossless" else 32
    source, target = trained(dino(32)), dino(width, patch_size=12, img_size=24)
    growth = grow(source, target, dict(type="resample", grower=grower))
    larger = resized_patches(IMAGES, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(larger), source.eval()(IMAGES))
    assert not growth.function_preserving
    assert growth.reason == "'patch' is resampled from 8 to 12 (kernels by their pseudo-inverse)"
    assert growth.params["patch_embed.proj.weight"] == "expanded"


def test_smaller_patches_are_the_nearest():
    kernel, basis = torch.randn(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)[None]
    resized = F.interpolate(basis, size=4, mode="linear")[0].T  # B, [4, 8]
    shrunk = pseudo_inverse(8, 4) @ kernel
    for other in (shrunk + 0.01, shrunk - 0.01, F.interpolate(kernel[None, None], size=4)[0, 0]):
        assert (resized.T @ shrunk - kernel).norm() < (resized.T @ other - kernel).norm()


def test_positions_are_interpolated_on_their_grid_and_class_tokens_stay():
    source, target = trained(vit(32)), vit(32, img_size=(16, 32))
    grow(source, target, "resample")
    assert torch.equal(target.pos_embed[:, :1], source.pos_embed[:, :1])
    grid = source.pos_embed[:, 1:].reshape(1, 2, 2, 32).movedim(3, 1)
    wider = F.interpolate(grid, size=(2, 4), mode="bicubic", antialias=True)
    grown = target.pos_embed[:, 1:].reshape(1, 2, 4, 32).movedim(3, 1)
    torch.testing.assert_close(grown, wider, atol=1e-12, rtol=0)
    assert torch.equal(target.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_maps_keep_what_is_constant():
    for small, large in ((2, 5), (7, 15), (8, 4)):
        assert torch.allclose(interpolated(small, large).sum(1), torch.ones(large).double())


def test_windows_have_other_offsets():
    source, target = trained(swin(16)), swin(32, (2, 4), img_size=32, window_size=8)
    growth = grow(source, target, "resample")
    assert "'height_0' is resampled from 7 to 15 (cubic interpolation)" in growth.reason
    table = source.layers[0].blocks[0].attn.relative_position_bias_table
    wider = target.layers[0].blocks[0].attn.relative_position_bias_table.reshape(15, 15, -1)
    assert torch.allclose(wider[7, 7, :2], table.reshape(7, 7, 2)[3, 3])
    arch = describe(target)
    assert arch.sizes["height_1"] == 15


def test_nothing_is_resampled_where_sizes_are_equal():
    source, target = trained(clip(32)), clip(64, 3)
    by_itself, wrapped = grow(source, target), grow(source, clip(64, 3), "resample")
    assert wrapped.function_preserving
    assert wrapped.counts == by_itself.counts


def test_other_growers_name_the_step():
    for options in (dict(patch_size=4), dict(patch_size=16, img_size=32), dict(img_size=8)):
        with pytest.raises(GrowthError, match=r"grower=dict\(type='resample'\)"):
            grow(vit(32), vit(32, **options))


def test_what_the_other_grower_cannot_do_is_refused_before_any_write():
    target = vit(16, patch_size=4)
    before = target.pos_embed.clone()
    with pytest.raises(GrowthError, match="the axis 'embed' would shrink"):
        grow(vit(32), target, "resample")
    assert torch.equal(target.pos_embed, before)
    with pytest.raises(ConfigError, match="grows whole models"):
        grow(vit(32), vit(32), dict(type="resample", grower="scratch"))


def test_moments_are_resampled_too():
    source, target = vit(32), vit(48, img_size=32)
    state = {
        f"{key}:{name}": torch.ones_like(param)
        for name, param in source.named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    moments = grow_state(source, target, "resample", state)
    assert moments["exp_avg:pos_embed"].shape == target.pos_embed.shape
    assert (moments["exp_avg_sq:pos_embed"] >= 0).all()
