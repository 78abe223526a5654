"""Grown optimizer states are the gradients of the grown model, at tilings exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compt import grow
from compt.growers.clone import Clone
from compt.growers.compose import Compose
from compt.growers.lossless import Lossless
from compt.growth.optimizer_state import grow_state, new_entries
from compt.testing.contracts import randomised
from compt.testing.toy import TiedNet, ToyNet
from compt.training.optim import named_state
from tests.growth.states import (
    CLONE,
    EVEN,
    LOSSLESS,
    clip,
    clip_loss,
    gradients,
    grown_and_true,
    llama,
    llama_loss,
    memory,
    near,
    tensors_copied,
    toy_loss,
    unchanged,
    vit,
    vit_loss,
)

pytestmark = EVEN


@pytest.mark.parametrize(
    ("make", "loss", "small", "large", "tolerance"),
    [
        (vit, vit_loss, (16, 2, 2), (32, 2, 4), 1e-9),
        (vit, vit_loss, (16, 1, 2), (48, 1, 6), 1e-9),
        (
            lambda *size: vit(*size, qk_norm=True, reg_tokens=2),
            vit_loss,
            (16, 1, 2),
            (32, 1, 4),
            1e-9,
        ),
        (lambda *size: ToyNet(*size).double(), toy_loss, (8, 2), (24, 2), 1e-9),
        (lambda *size: ToyNet(*size, rms=True).double(), toy_loss, (8, 1), (16, 1), 1e-9),
        (clip, clip_loss, (16, 16), (32, 16), 1e-9),
        (llama, llama_loss, (16, 2, 2), (32, 2, 4), 1e-6),  # its norms compute in float32
    ],
    ids=["vit", "three-copies", "qk-norm", "toy", "rms", "clip", "llama"],
)
def test_tilings_have_the_moments_of_the_true_gradient(make, loss, small, large, tolerance):
    state, true = grown_and_true(make(*small), make(*large), CLONE, loss)
    assert state.keys() == memory(true).keys()
    for name, gradient in true.items():
        assert near(state[f"exp_avg:{name}"], gradient, tolerance), name
        assert near(state[f"exp_avg_sq:{name}"], gradient**2, tolerance), name
        assert state[f"step:{name}"] == 7, name


def test_a_tied_table_has_the_moments_of_both_its_uses():
    models = llama(16, 2, 2, tie_word_embeddings=True), llama(32, 2, 4, tie_word_embeddings=True)
    state, true = grown_and_true(*models, CLONE, llama_loss)
    assert "lm_head.weight" not in true
    assert state.keys() == memory(true).keys()
    for name in true.keys() - {"model.norm.weight"}:
        assert near(state[f"exp_avg:{name}"], true[name], 1e-6), name
        assert near(state[f"exp_avg_sq:{name}"], true[name] ** 2, 1e-6), name


@pytest.mark.parametrize(
    ("make", "loss", "small", "large", "name"),
    [
        (
            lambda *size: llama(*size, tie_word_embeddings=True),
            llama_loss,
            (16, 1, 2),
            (32, 1, 4),
            "model.norm.weight",
        ),
        (lambda *size: TiedNet(*size).double(), toy_loss, (8, 1), (16, 1), "norm.bias"),
        (
            lambda *size: vit(*size, init_values=0.3),
            vit_loss,
            (16, 1, 2),
            (32, 1, 4),
            "blocks.0.ls1.gamma",
        ),
        (clip, clip_loss, (16, 16), (32, 48), "visual.proj"),
        (clip, clip_loss, (16, 16), (16, 32), "text_projection"),
    ],
    ids=["tied-gain", "tied-bias", "layer-scale", "feature", "feature-alone"],
)
def test_the_moments_of_every_tensor_have_the_gradients_size(make, loss, small, large, name):
    state, true = grown_and_true(make(*small), make(*large), CLONE, loss)
    assert near(state[f"exp_avg:{name}"], true[name], 1e-6)


@pytest.mark.parametrize(
    "make", [lambda *size: vit(*size, init_values=0.3), lambda *size: vit(*size, qk_norm=True)]
)
def test_up_to_a_factor_for_each_tensor_the_moments_are_the_gradient(make):
    state, true = grown_and_true(make(16, 1, 2), make(32, 1, 4), CLONE, vit_loss)
    for name, gradient in true.items():
        moment, square = state[f"exp_avg:{name}"], state[f"exp_avg_sq:{name}"]
        factor = (moment * gradient).sum() / gradient.square().sum()
        assert near(moment, factor * gradient), name
        assert near(square, moment**2), name


def test_moments_of_features_go_through_the_isometry_of_the_same_seed():
    source, target = randomised(clip(16, 16)), clip(32, 24)
    source_state = memory(gradients(source, clip_loss))
    states = [grow_state(source, target, LOSSLESS, source_state, seed=seed) for seed in (3, 4)]
    grow(source, target, LOSSLESS, seed=3)
    true = gradients(target, clip_loss)
    for name in ("visual.proj", "text_projection"):
        assert near(states[0][f"exp_avg:{name}"], true[name]), name
        assert not near(states[1][f"exp_avg:{name}"], true[name], 0.1), name


@pytest.mark.parametrize("grower", [CLONE, LOSSLESS])
def test_a_tied_table_that_becomes_two_gives_its_moments_to_both(grower):
    """The embedding's copies share them out, the head's have them whole."""
    source, target = (
        llama(16, 1, 2, tie_word_embeddings=True),
        llama(32, 1, 4, tie_word_embeddings=False),
    )
    source_state = memory(gradients(randomised(source), llama_loss))
    state, moment = (
        grow_state(source, target, grower, source_state),
        source_state["exp_avg:model.embed_tokens.weight"],
    )
    assert near(state["exp_avg:model.embed_tokens.weight"], torch.cat([moment, moment], 1) / 2)
    assert near(state["exp_avg:lm_head.weight"], torch.cat([moment, moment], 1))
    assert near(state["exp_avg_sq:lm_head.weight"], torch.cat([moment, moment], 1) ** 2)


@pytest.mark.parametrize(
    ("grower", "new"),
    [
        (CLONE, [1, 3]),
        (dict(type="compose", width=CLONE, depth=dict(type="stack", blocks="zero")), [2, 3]),
        (
            dict(
                type="compose",
                width=CLONE,
                depth=dict(type="stack", order="interleave", blocks="zero"),
            ),
            [1, 3],
        ),
    ],
)
def test_new_blocks_start_anew_and_the_others_keep_their_moments(grower, new):
    """Steps start anew, too.

    With the source's count Adam would not correct the bias of moments that begin at zero.
    """
    state, true = grown_and_true(vit(16, 2, 2), vit(32, 4, 4), grower, vit_loss)
    for name, gradient in true.items():
        if name.startswith(tuple(f"blocks.{i}." for i in new)):
            assert not [key for key in state if key.endswith(f":{name}")], name
        else:
            assert near(state[f"exp_avg:{name}"], gradient), name
            assert near(state[f"exp_avg_sq:{name}"], gradient**2), name


@pytest.mark.parametrize("size", [(48, 2, 3), (80, 3, 5)])
def test_lossless_moments_point_along_the_gradient_at_any_width(size):
    state, true = grown_and_true(vit(32, 2, 2), vit(*size), LOSSLESS, vit_loss)
    for name, gradient in true.items():
        if size[1] == 3 and name.startswith("blocks.1."):
            assert f"exp_avg:{name}" not in state, name
            continue
        moment, square = state[f"exp_avg:{name}"], state[f"exp_avg_sq:{name}"]
        inherited = moment != 0
        assert F.cosine_similarity(moment[inherited], gradient[inherited], dim=0) > 0.98, name
        assert inherited.double().mean() > 0.3, name
        assert (square >= 0).all() and torch.isfinite(square).all(), name
        assert square[inherited].all(), f"{name} would take steps of any size"


@pytest.mark.parametrize("grower", [CLONE, LOSSLESS, "leading_block", "stack"])
def test_between_equal_models_the_state_stays_as_it_is(grower):
    source, target = (ToyNet(8, 2).float() for _ in range(2))
    state = memory(gradients(source, lambda model: toy_loss(model.double())))
    state = {key: value.float() for key, value in state.items()}
    grown = grow_state(source.float(), target.float(), grower, state)
    assert grown.keys() == state.keys()
    assert all(torch.equal(grown[key], state[key]) for key in state)
    assert all(grown[key].dtype == torch.float32 for key in state)


def test_leading_block_moments_fill_the_corner():
    source, target = ToyNet(2, 1).double(), ToyNet(3, 1).double()
    state = memory(gradients(randomised(source), toy_loss))
    grown = grow_state(source, target, "leading_block", state)
    for name, param in source.named_parameters():
        corner = tuple(slice(0, n) for n in param.shape)
        for kind in ("exp_avg", "exp_avg_sq"):
            value = grown[f"{kind}:{name}"]
            assert torch.allclose(value[corner], state[f"{kind}:{name}"], rtol=1e-12, atol=0), name
            value[corner] = 0
            assert not value.any(), name


def test_neither_noise_nor_filling_is_in_the_moments():
    source, target = ToyNet(8, 1).double(), ToyNet(16, 1).double()
    state = memory(gradients(randomised(source), toy_loss))
    for noisy, even in (
        ("lossless", LOSSLESS),
        (dict(type="lossless", fill="copy"), LOSSLESS),
        ("clone", Clone(noise=1.0).without_noise()),
    ):
        from_noisy, from_even = (
            grow_state(source, target, grower, state) for grower in (noisy, even)
        )
        assert all(torch.equal(from_noisy[key], from_even[key]) for key in from_noisy), noisy


def test_momentum_alone_is_grown_and_what_has_none_starts_anew():
    source, target = ToyNet(8, 1).double(), ToyNet(16, 2).double()
    state = {
        f"momentum_buffer:{k}": v
        for k, v in gradients(source, toy_loss).items()
        if k != "head.weight"
    }
    grown = grow_state(source, target, "lossless", state)
    names = {name for name, _ in target.named_parameters() if not name.startswith("blocks.1.")} - {
        "head.weight"
    }
    assert grown.keys() == {f"momentum_buffer:{name}" for name in names}
    assert grow_state(source, target, "lossless", {}) == {}


def test_whatever_an_optimizer_remembers_gets_the_targets_shape():
    source, target = ToyNet(8, 1).double(), ToyNet(16, 1).double()
    optimizer = torch.optim.AdamW(source.parameters(), amsgrad=True)
    toy_loss(source).backward()
    optimizer.step()
    grown = grow_state(source, target, "lossless", named_state(source, optimizer))
    shapes = {name: param.shape for name, param in target.named_parameters()}
    assert all(value.shape in (shapes[key.partition(":")[2]], ()) for key, value in grown.items())


@pytest.mark.parametrize("grower", [CLONE, "lossless", "leading_block"])
def test_models_and_global_random_numbers_are_left_alone(grower):
    source, target = randomised(ToyNet(8, 1).double()), ToyNet(20, 2).double()
    state = memory(gradients(source, toy_loss))
    state_copy, models_before = (
        {key: value.clone() for key, value in state.items()},
        (tensors_copied(source), tensors_copied(target)),
    )
    random_state = torch.get_rng_state()
    grow_state(source, target, grower, state)
    new_entries(source, target, grower)
    assert torch.equal(random_state, torch.get_rng_state())
    assert unchanged(source, models_before[0]) and unchanged(target, models_before[1])
    assert all(torch.equal(state_copy[key], state[key]) for key in state_copy)


def test_growers_without_noise_are_the_same_otherwise():
    clone, lossless = (
        Clone(noise=0.5, blocks="copy"),
        Lossless(noise=0.5, fill="copy", blocks="fresh"),
    )
    composed = Compose(
        width=dict(type="clone", noise=0.5), depth=dict(type="stack", order="interleave")
    )
    even = clone.without_noise(), lossless.without_noise(), composed.without_noise()
    assert [even[0].noise, even[1].noise, even[2].width.noise] == [0, 0, 0]
    assert (even[0].depth.blocks, even[1].blocks, even[2].depth.order) == (
        "copy",
        "fresh",
        "interleave",
    )
    assert (clone.noise, lossless.noise, composed.width.noise) == (0.5, 0.5, 0.5)
