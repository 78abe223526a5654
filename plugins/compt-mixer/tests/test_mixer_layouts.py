"""Contracts, exactness in float64, and an honest report where there is none."""

from __future__ import annotations

import pytest
import timm
import torch
from mixer_models import gmixer, mamba, mixer, normed_mixer, randomised, resmlp

import compt
from compt.testing import LayoutContract

GROWERS = ["lossless", "clone"]
MIXERS = [mixer, normed_mixer, gmixer, resmlp]
OTHERS = ["leading_block", "scratch", dict(type="compose", width="lossless", depth="stack")]


class TestMixer(LayoutContract):
    def pair(self):
        return mixer(32, 2), mixer(64, 3)


class TestMixerAtAnotherWidth(LayoutContract):
    def pair(self):
        return mixer(32, 2), mixer(48, 3)


class TestMixerWithNormAfterThePatches(LayoutContract):
    def pair(self):
        return normed_mixer(16, 1), normed_mixer(32, 2)


class TestGatedMixer(LayoutContract):
    def pair(self):
        return gmixer(16, 1), gmixer(32, 2)


class TestResMlp(LayoutContract):
    def pair(self):
        return resmlp(16, 1), resmlp(32, 2)


class TestMamba(LayoutContract):
    def pair(self):
        return mamba(32, 2), mamba(48, 3)


class TestUntiedMamba(LayoutContract):
    def pair(self):
        return mamba(32, 2, tied=False, use_bias=True), mamba(48, 3, tied=False, use_bias=True)


def test_axes_of_a_mixer():
    arch = compt.describe(mixer(32, 2))
    widths = {"embed": 32, "patch": 8, "position": 16, "tokens_mlp": 16, "mlp": 128, "classes": 5}
    assert arch.sizes == {**widths, "gates": 1, "residual": 1}
    assert arch.depths == {"blocks": 2}
    assert arch.whole == {"embed"}
    assert "patch_embed" in compt.describe(normed_mixer(32, 2)).sizes


def test_axes_of_its_relatives():
    gated = compt.describe(gmixer(32, 2))
    assert (gated.sizes["gates"], gated.sizes["tokens_mlp"], gated.sizes["mlp"]) == (2, 16, 64)
    factors = compt.describe(resmlp(32, 2)).params
    assert factors["blocks.0.mlp_channels.fc2.weight"].scaled_by == "blocks.0.ls2"
    assert factors["blocks.0.mlp_channels.fc2.bias"].scaled_by == "blocks.0.ls2"


@pytest.mark.parametrize(
    ("make", "name", "kind", "written"),
    [
        (mixer, "stem.proj.weight", "weight", ["embed"]),
        (mixer, "blocks.0.norm2.bias", "layer_norm_bias", []),
        (mixer, "blocks.0.mlp_tokens.fc2.bias", "weight", ["position", "residual"]),
        (normed_mixer, "stem.proj.weight", "weight", ["patch_embed"]),
        (normed_mixer, "stem.norm.weight", "layer_norm_gain", ["embed"]),
        (normed_mixer, "stem.norm.bias", "layer_norm_bias", ["embed"]),
        (resmlp, "blocks.0.ls1", "scale", []),
        (resmlp, "norm.alpha", "scale", []),
        (resmlp, "norm.beta", "weight", ["embed"]),
        (mamba, "backbone.layers.0.mixer.conv1d.weight", "scale", []),
        (mamba, "backbone.layers.0.mixer.A_log", "scale", []),
        (mamba, "backbone.layers.0.mixer.D", "scale", []),
        (mamba, "backbone.layers.0.mixer.dt_proj.weight", "weight", ["inner"]),
    ],
)
def test_what_is_written_and_what_only_scales(make, name, kind, written):
    param = compt.describe(make(32, 1)).params[name]
    assert param.kind == kind
    assert [axis for axis, does in param.directions if does == "writes"] == written


@pytest.mark.parametrize("name", ["mixer_l16_224", "gmixer_24_224", "resmlp_big_24_224"])
def test_timms_own_have_axes(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    arch = compt.describe(model)
    assert arch.sizes["embed"] == model.embed_dim
    assert arch.depths == {"blocks": 24}


def test_axes_of_a_mamba():
    arch = compt.describe(mamba(32, 2))
    assert arch.sizes["inner"] == 64
    assert (arch.sizes["state"], arch.sizes["time_step"], arch.sizes["selection"]) == (4, 3, 11)
    assert {axis for axis, role in arch.roles.items() if role != "fixed"} == {"embed", "inner"}
    assert arch.params["backbone.norm_f.weight"].read_by == "lm_head.weight"


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.parametrize("make", MIXERS)
@pytest.mark.parametrize(
    ("small", "large"), [((32, 2), (64, 4)), ((32, 2), (32, 5)), ((16, 1), (48, 3))]
)
def test_mixers_keep_the_function_in_depth_and_at_whole_multiples(small, large, make, grower):
    growth = compt.grow(randomised(make(*small)), make(*large).double(), grower)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


@pytest.mark.parametrize("make", [mixer, gmixer])
def test_the_mlps_of_a_mixer_grow_alone(make):
    wide = make(32, 2, mlp_ratio=(1.25, 5.5)).double()
    growth = compt.grow(randomised(make(32, 2)), wide, "lossless")
    assert growth.function_preserving
    assert growth.error < 1e-12


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.parametrize("make", MIXERS)
@pytest.mark.parametrize("double", [True, False])
def test_a_mixer_at_another_width_says_that_it_is_only_close(double, make, grower):
    source, target = randomised(make(32, 2)), make(48, 2).double()
    growth = compt.grow(
        source if double else source.float(), target if double else target.float(), grower
    )
    assert not growth.function_preserving
    assert "'embed'" in growth.reason
    assert 1e-3 < growth.error < 0.5


@pytest.mark.parametrize(
    "fixed",
    [dict(), dict(tied=False), dict(tied=False, use_bias=True, use_conv_bias=False)],
    ids=str,
)
@pytest.mark.parametrize(
    ("large", "options"),
    [
        ((48, 5), {}),
        ((80, 2), {}),
        ((33, 3), dict(expand=3)),
        ((64, 2), dict(expand=4)),
        ((32, 7), {}),
    ],
)
def test_mambas_keep_the_function_at_any_width_and_depth(large, options, fixed):
    growth = compt.grow(
        randomised(mamba(32, 2, **fixed)), mamba(*large, **fixed, **options).double(), "lossless"
    )
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


@pytest.mark.parametrize("tied", [True, False])
def test_cloned_mambas_keep_the_function_at_whole_multiples_only(tied):
    source = randomised(mamba(32, 2, tied=tied))
    exact = compt.grow(source, mamba(64, 3, tied=tied).double(), "clone")
    close = compt.grow(source, mamba(48, 3, tied=tied).double(), "clone")
    assert exact.function_preserving and exact.error < 1e-12
    assert not close.function_preserving and 1e-3 < close.error < 0.5


def test_a_tied_mamba_grows_into_an_untied_one():
    growth = compt.grow(randomised(mamba(32, 2)), mamba(48, 3, tied=False).double(), "lossless")
    assert growth.function_preserving and growth.error < 1e-12


def test_two_hops_of_a_mamba():
    models = [randomised(mamba(32, 1)), mamba(40, 2).double(), mamba(72, 3).double()]
    compt.grow(models[0], models[1])
    growth = compt.grow(models[1], models[2])
    assert growth.error < 1e-12
    tokens = torch.arange(20).view(2, 10)
    source_logits, target_logits = (
        model.eval()(tokens, use_cache=False).logits for model in (models[0], models[2])
    )
    assert (source_logits - target_logits).abs().max() < 1e-4 * source_logits.abs().max(), (
        "transformers itself computes in float32"
    )


def test_the_probe_is_the_model_itself():
    """But for rounding, the probe's logits are those of a plain call."""
    from compt_mixer.mamba import TOKENS, MambaLayout

    model = randomised(mamba(32, 2)).eval()
    with torch.no_grad():
        probed = MambaLayout().probe(model, torch.Generator().manual_seed(5))["logits"]
        tokens = torch.randint(61, (2, TOKENS), generator=torch.Generator().manual_seed(5))
        plain = model(tokens, use_cache=False).logits
    assert (probed - plain).abs().max() < 1e-4 * plain.abs().max()
    assert not torch.equal(probed, plain), "float64 is more than transformers keeps"
    assert probed.dtype is torch.float64


@pytest.mark.parametrize("make", [mixer, gmixer, resmlp, mamba])
@pytest.mark.parametrize("grower", [*OTHERS, *GROWERS], ids=str)
def test_every_grower_grows_them_and_everything_learns(make, grower):
    target = make(64, 4)
    compt.grow(randomised(make(32, 2)).float(), target, grower)
    target.train()
    dead = {name for name, _ in target.named_parameters()}
    optimizer = torch.optim.AdamW(target.parameters(), lr=1e-3)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        if make is not mamba:
            outputs = target(torch.randn(8, 3, 32, 32, generator=generator))
            loss = torch.nn.functional.cross_entropy(outputs, torch.arange(8) % 5)
        else:
            tokens = torch.randint(61, (4, 10), generator=generator)
            loss = target(tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        dead -= {
            name for name, p in target.named_parameters() if p.grad is not None and p.grad.any()
        }
        optimizer.step()
    assert not dead


@pytest.mark.parametrize("make", [mixer, gmixer, resmlp])
def test_new_blocks_of_a_mixer_write_nothing_yet(make):
    source, target = randomised(make(32, 2)).float(), make(32, 3)
    compt.grow(source, target, "lossless")
    new = target.blocks[1]  # blocks 0, 0, 1 of the source
    mixes_tokens = new.linear_tokens if make is resmlp else new.mlp_tokens.fc2
    # behind the channels' MLP of ResMLP comes a factor, and of the two only the last is 0
    mixes_channels = [new.ls2] if make is resmlp else [*new.mlp_channels.fc2.parameters()]
    for writer in (*mixes_tokens.parameters(), *mixes_channels):
        assert not writer.any()
    assert torch.equal(new.mlp_channels.fc1.weight, source.blocks[0].mlp_channels.fc1.weight)


@pytest.mark.parametrize(
    ("large", "message"),
    [
        (
            lambda: mamba(48, 2, state_size=8),
            "'state' changes from 4 to 8|'selection' changes from 11 to 19",
        ),
        (
            lambda: mamba(48, 2, time_step_rank=5),
            "'time_step' changes from 3 to 5|'selection' changes from 11 to 13",
        ),
        (lambda: mamba(48, 2, conv_kernel=8), "'kernel' changes from 4 to 8"),
        (lambda: mamba(48, 2, vocab_size=70), "'vocab' changes from 61 to 70"),
    ],
)
def test_what_cannot_grow_is_named(large, message):
    with pytest.raises(compt.GrowthError, match=message):
        compt.grow(mamba(32, 2), large(), "lossless")


@pytest.mark.parametrize("grower", [*OTHERS[:1], *GROWERS])
@pytest.mark.parametrize("make", [mixer, resmlp])
def test_more_patches_are_refused(make, grower):
    with pytest.raises(compt.GrowthError, match="'position' changes from 16 to 64"):
        compt.grow(make(32, 2), make(64, 2, img_size=64), grower)


def test_a_mixer_does_not_become_a_gated_one():
    with pytest.raises(compt.GrowthError, match="'gates' changes from 1 to 2"):
        compt.grow(mixer(32, 2), gmixer(64, 2), "lossless")


def test_the_relative_that_has_no_layout_is_named():
    with torch.device("meta"):
        model = timm.create_model("gmlp_ti16_224")
    with pytest.raises(compt.LayoutError, match="does not describe"):
        compt.describe(model)
