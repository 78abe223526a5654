"""What grown members take along: moments that are gradients, masks of new entries, steps at two
rates, and faults.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compt
import tests.learner  # noqa: F401 - registers the grower
from compt import GrowthError, grow
from compt.growers.clone import Clone
from compt.growers.compose import Compose
from compt.growers.leading_block import LeadingBlock
from compt.growers.lossless import Lossless
from compt.growth.optimizer_state import grow_state, new_entries
from compt.testing.contracts import randomised
from compt.testing.toy import TiedNet, ToyNet
from compt.training.optim import load_named_state, named_state, scale_steps
from compt.weights import read_state, save_tensors

EVEN = pytest.mark.filterwarnings("ignore:clone with noise=0")
CLONE, LOSSLESS = dict(type="clone", noise=0.0), dict(type="lossless", noise=0.0)


def vit(width, depth, heads, **options):
    models = pytest.importorskip("timm").models.vision_transformer
    torch.manual_seed(width)
    size = dict(
        img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=heads, num_classes=5
    )
    return models.VisionTransformer(**size, **options).double()


def llama(width, layers, heads, **options):
    from tests.layouts.language_models import llama

    return llama(width, layers, heads, heads // 2, 2 * width, head_dim=8, **options)


def clip(width, features):
    models = pytest.importorskip("open_clip").model
    torch.manual_seed(width)
    vision = models.CLIPVisionCfg(layers=1, width=width, head_width=8, image_size=16, patch_size=8)
    text = models.CLIPTextCfg(
        context_length=8, vocab_size=20, width=width, heads=width // 8, layers=1
    )
    return models.CLIP(features, vision, text).double()


def clip_loss(model):
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    image, text, scale = model(images, 1 + torch.arange(8) + torch.arange(3)[:, None])
    return F.cross_entropy(scale * image @ text.T, torch.arange(3))


def vit_loss(model):
    x, label = (
        torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
    )
    return F.cross_entropy(model(x.double()), label)


def toy_loss(model):
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.cross_entropy(model.eval()(x), torch.arange(6))


def llama_loss(model):
    tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    return model(input_ids=tokens, labels=tokens).loss


def gradients(model, loss):
    model.zero_grad()
    loss(model).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert sum(gradient.norm() > 1e-9 for gradient in found.values()) > 0.7 * len(found), (
        "nothing to compare"
    )
    return found


def memory(gradient):
    """The state of an Adam whose last seven gradients were this one."""
    state = {f"exp_avg:{name}": value for name, value in gradient.items()}
    state |= {f"exp_avg_sq:{name}": value**2 for name, value in gradient.items()}
    return state | {f"step:{name}": torch.tensor(7.0) for name in gradient}


def grown_and_true(source, target, grower, loss):
    """The state that is grown from the source's gradient, and the gradient of the grown model."""
    state = grow_state(source, target, grower, memory(gradients(randomised(source), loss)))
    grow(source, target, grower)
    return state, gradients(target, loss)


def near(one, other, tolerance=1e-9):
    return (one - other).norm() <= tolerance * other.norm() + 1e-15  # keys' biases get no gradient


def parts(model):
    """Copies of all that a model holds."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    after = model.state_dict()
    return before.keys() == after.keys() and all(
        torch.equal(before[name], after[name]) for name in before
    )


# grow_state


@EVEN
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


@EVEN
def test_a_tied_table_has_the_moments_of_both_its_uses():
    models = llama(16, 2, 2, tie_word_embeddings=True), llama(32, 2, 4, tie_word_embeddings=True)
    state, true = grown_and_true(*models, CLONE, llama_loss)
    assert "lm_head.weight" not in true
    assert state.keys() == memory(true).keys()
    for name in true.keys() - {"model.norm.weight"}:
        assert near(state[f"exp_avg:{name}"], true[name], 1e-6), name
        assert near(state[f"exp_avg_sq:{name}"], true[name] ** 2, 1e-6), name


@EVEN
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


@EVEN
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
    given = memory(gradients(source, clip_loss))
    states = [grow_state(source, target, LOSSLESS, given, seed=seed) for seed in (3, 4)]
    grow(source, target, LOSSLESS, seed=3)
    true = gradients(target, clip_loss)
    for name in ("visual.proj", "text_projection"):
        assert near(states[0][f"exp_avg:{name}"], true[name]), name
        assert not near(states[1][f"exp_avg:{name}"], true[name], 0.1), name


@EVEN
@pytest.mark.parametrize("grower", [CLONE, LOSSLESS])
def test_a_tied_table_that_becomes_two_gives_its_moments_to_both(grower):
    """The embedding's copies share them out, the head's have them whole."""
    source, target = (
        llama(16, 1, 2, tie_word_embeddings=True),
        llama(32, 1, 4, tie_word_embeddings=False),
    )
    given = memory(gradients(randomised(source), llama_loss))
    state, moment = (
        grow_state(source, target, grower, given),
        given["exp_avg:model.embed_tokens.weight"],
    )
    assert near(state["exp_avg:model.embed_tokens.weight"], torch.cat([moment, moment], 1) / 2)
    assert near(state["exp_avg:lm_head.weight"], torch.cat([moment, moment], 1))
    assert near(state["exp_avg_sq:lm_head.weight"], torch.cat([moment, moment], 1) ** 2)


@EVEN
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
    """Steps included: with the source's count Adam would not correct the bias of moments that begin
    at zero.
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
        told = moment != 0
        assert F.cosine_similarity(moment[told], gradient[told], dim=0) > 0.98, name
        assert told.double().mean() > 0.3, name
        assert (square >= 0).all() and torch.isfinite(square).all(), name
        assert square[told].all(), f"{name} would take steps of any size"


@EVEN
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
        one, other = (grow_state(source, target, grower, state) for grower in (noisy, even))
        assert all(torch.equal(one[key], other[key]) for key in one), noisy


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


@EVEN
@pytest.mark.parametrize("grower", [CLONE, "lossless", "leading_block"])
def test_models_and_global_random_numbers_are_left_alone(grower):
    source, target = randomised(ToyNet(8, 1).double()), ToyNet(20, 2).double()
    state = memory(gradients(source, toy_loss))
    given, before = (
        {key: value.clone() for key, value in state.items()},
        (parts(source), parts(target)),
    )
    random = torch.get_rng_state()
    grow_state(source, target, grower, state)
    new_entries(source, target, grower)
    assert torch.equal(random, torch.get_rng_state())
    assert unchanged(source, before[0]) and unchanged(target, before[1])
    assert all(torch.equal(given[key], state[key]) for key in given)


def test_growers_without_noise_are_the_same_otherwise():
    clone, lossless = (
        Clone(noise=0.5, blocks="copy"),
        Lossless(noise=0.5, fill="copy", blocks="fresh"),
    )
    both = Compose(
        width=dict(type="clone", noise=0.5), depth=dict(type="stack", order="interleave")
    )
    even = clone.without_noise(), lossless.without_noise(), both.without_noise()
    assert [even[0].noise, even[1].noise, even[2].width.noise] == [0, 0, 0]
    assert (even[0].depth.blocks, even[1].blocks, even[2].depth.order) == (
        "copy",
        "fresh",
        "interleave",
    )
    assert (clone.noise, lossless.noise, both.width.noise) == (0.5, 0.5, 0.5)


# new_entries


def outside(shape, *corner):
    """True outside the leading corner."""
    mask = torch.ones(shape, dtype=torch.bool)
    mask[tuple(slice(0, n) for n in corner)] = False
    return mask


def test_leading_block_leaves_all_outside_the_corner_new():
    source, target = ToyNet(2, 1), ToyNet(3, 2)
    sizes = {name: tuple(param.shape) for name, param in source.named_parameters()}
    found = new_entries(source, target, "leading_block")
    assert list(found) == [name for name, _ in target.named_parameters()]
    for name, mask in found.items():
        corner = sizes[name.replace("blocks.1", "blocks.0")]
        assert torch.equal(mask, outside(mask.shape, *corner)), name
    assert found["blocks.1.fc1.weight"].tolist() == [[False, False, True]] * 4 + [[True] * 3] * 2


@pytest.mark.parametrize("fused", ["split", "whole"])
def test_leading_block_of_fused_tensors(fused):
    found = new_entries(vit(4, 1, 1), vit(8, 1, 2), dict(type="leading_block", fused=fused))
    qkv = found["blocks.0.attn.qkv.weight"]
    expected = (
        outside((3, 8, 8), 3, 4, 4).reshape(24, 8) if fused == "split" else outside((24, 8), 12, 4)
    )
    assert torch.equal(qkv, expected)
    assert torch.equal(found["blocks.0.attn.qkv.bias"], expected[:, 0])


@pytest.mark.parametrize("rms", [False, True])
def test_lossless_adds_fresh_rows_and_zeroed_columns_and_pads_that_hold_means_are_not_new(rms):
    """8 -> 20 is two copies and four pads; 16 of 40 hidden units are inherited. Pads of RMSNorm are
    zero: new.
    """
    found = new_entries(ToyNet(8, 1, rms=rms), ToyNet(20, 1, rms=rms), "lossless")
    stream = 16 if rms else 20
    expected = {
        "embed.weight": outside((20, 8), stream, 8),
        "embed.bias": outside((20,), stream),
        "blocks.0.norm.weight": outside((20,), 20),
        "blocks.0.fc1.weight": outside((40, 20), 16, 16),
        "blocks.0.fc1.bias": outside((40,), 16),
        "blocks.0.fc2.weight": outside((20, 40), stream, 16),
        "blocks.0.fc2.bias": outside((20,), stream),
        "norm.weight": outside((20,), 20),
        "head.weight": outside((10, 20), 10, 16),
        "head.bias": outside((10,), 10),
    }
    if not rms:
        expected |= {name: outside((20,), 16) for name in ("blocks.0.norm.bias", "norm.bias")}
    assert found.keys() == expected.keys()
    for name, mask in found.items():
        assert torch.equal(mask, expected[name]), name


@pytest.mark.parametrize(
    ("grower", "new"), [("scratch", True), ("clone", False), ("lossless", False)]
)
def test_all_or_nothing_is_new(grower, new):
    """From scratch everything is; where a model is as large as its source nothing is."""
    found = new_entries(ToyNet(8, 2), ToyNet(16 if new else 8, 2), grower)
    assert all(bool(mask.all()) is new and bool(mask.any()) is new for mask in found.values())


class Drawn(LeadingBlock):
    """A leading block whose other entries the grower draws itself."""

    def expand(self, source, target, site):
        return super().expand(
            source, torch.randn(target.shape, generator=site.generator, dtype=target.dtype), site
        )


def test_what_the_grower_draws_itself_is_new_too():
    found = new_entries(ToyNet(2, 1), ToyNet(3, 1), Drawn(), seed=5)
    assert torch.equal(found["head.weight"], outside((10, 3), 10, 2))


def test_what_a_new_block_writes_is_new():
    found = new_entries(ToyNet(8, 1), ToyNet(16, 2), "clone")
    assert {name for name, mask in found.items() if mask.any()} == {
        "blocks.1.fc2.weight",
        "blocks.1.fc2.bias",
    }
    assert found["blocks.1.fc2.weight"].all()


def test_tied_weights_are_told_once():
    found = new_entries(TiedNet(8, 1), TiedNet(20, 1), "lossless")
    assert "embed.weight" in found
    assert "head.weight" not in found
    assert not found["embed.weight"].any()
    found = new_entries(TiedNet(8, 1), TiedNet(20, 1), "leading_block")
    assert torch.equal(found["embed.weight"], outside((8, 20), 8, 8))


# scale_steps

OPTIMIZERS = {
    "AdamW": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1),
    "fused": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1, fused=True),
    "Adam": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=0.1),
    "SGD": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1, momentum=0.9, nesterov=True),
}


def descended(optimizer, lr, masks=None, ratio=1.0, steps=6):
    """Three tensors after some steps, at rates that change, in a bowl where every entry moves on
    its own.
    """
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
    for one, other, both, mask in zip(
        slow, fast, mixed, [*masks, torch.zeros(4, 3, dtype=torch.bool)]
    ):
        assert torch.allclose(both, torch.where(mask, other, one), rtol=1e-11, atol=1e-12)
        assert not torch.allclose(one, other, atol=1e-3)


# named_state, load_named_state


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
    model, other = (ToyNet(8, 2).double() for _ in range(2))
    one, two = two_groups(model, lr=1e-2), two_groups(other, swapped=True, lr=1e-2)
    steps(model, one, 3)
    other.load_state_dict(model.state_dict())
    state = named_state(model, one)
    names = [name for name, _ in model.named_parameters()]
    assert state.keys() == {
        f"{key}:{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    save_tensors(state, tmp_path / "state.safetensors")
    load_named_state(other, two, read_state(tmp_path / "state.safetensors"))
    again = named_state(other, two)
    assert again.keys() == state.keys() and all(
        torch.equal(state[key], again[key]) for key in state
    )
    steps(model, one, 2)
    steps(other, two, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def test_what_has_no_state_starts_anew_at_the_optimizers_own_rate():
    model = ToyNet(8, 1).double()
    optimizer = two_groups(model, lr=1e-2)
    steps(model, optimizer, 3)
    kept = {
        key: value
        for key, value in named_state(model, optimizer).items()
        if not key.endswith(":head.weight")
    }
    other = two_groups(model, lr=5e-3, betas=(0.8, 0.9))
    load_named_state(model, other, {**kept, "exp_avg:unknown": torch.ones(3)})
    assert {group["lr"] for group in other.param_groups} == {5e-3}
    assert {group["betas"] for group in other.param_groups} == {(0.8, 0.9)}
    steps(model, other, 1)
    for name, param in model.named_parameters():
        assert other.state[param]["step"] == (1 if name == "head.weight" else 4), name


def test_fused_momentum_goes_on_beside_parameters_that_have_none():
    """As the projection of a transfer, which is in no member."""
    model, beside = ToyNet(8, 1).double(), nn.Parameter(torch.ones(3, dtype=torch.float64))
    one = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    two = torch.optim.SGD([*model.parameters(), beside], lr=1e-2, momentum=0.9, fused=True)
    steps(model, one, 2)
    load_named_state(model, two, named_state(model, one))
    beside.grad = torch.full((3,), 2.0, dtype=torch.float64)
    two.step()
    assert beside.tolist() == pytest.approx([0.98] * 3)


# The plan


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
    for one, other in pairwise("abc"):
        assert f"'{one}' -> '{other}'" in str(caught.value)
