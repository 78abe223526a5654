"""Recompute activations, for the same losses and gradients with every block run once more."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from compt.testing.toy import ToyNet
from compt.training.performance import Performance
from compt.training.stage import StageModel

TOY = dict(width=16, depth=3, dropout=0.5)
CLIP = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=16, patch_size=8, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=8, vocab_size=99, width=32, heads=2, layers=3),
)
LLAMA = dict(
    model_type="llama",
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    attention_dropout=0.3,
)
GPT2 = dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.3, attn_pdrop=0.3)
MAE = dict(
    type="mmpretrain.MAE",
    backbone=dict(
        type="mmpretrain.MAEViT",
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
        mask_ratio=0.5,
        drop_rate=0.3,
        drop_path_rate=0.5,
    ),
    neck=dict(
        type="mmpretrain.MAEPretrainDecoder",
        num_patches=16,
        patch_size=8,
        embed_dim=32,
        decoder_embed_dim=16,
        decoder_depth=2,
        decoder_num_heads=2,
        mlp_ratio=2,
    ),
    head=dict(
        type="mmpretrain.MAEPretrainHead",
        patch_size=8,
        loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
    ),
)


def toy_batch() -> dict[str, Any]:
    return {"x": torch.randn(4, 8), "label": torch.arange(4)}


def clip_batch() -> dict[str, Any]:
    image = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    return {"image": image, "text": torch.randint(1, 99, (4, 8)), "label": torch.arange(4)}


def lm_batch() -> dict[str, Any]:
    return {"tokens": torch.randint(257, (3, 13))}


def mae_batch() -> dict[str, Any]:
    from mmpretrain.structures import DataSample

    image = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    return {"inputs": image, "data_samples": [DataSample() for _ in image]}


KINDS: Mapping[str, tuple[dict[str, Any], Any, Any, int]] = {
    "toy": (dict(type="toy"), TOY, toy_batch, 3),
    "clip": (dict(type="clip"), CLIP, clip_batch, 2 + 3),
    "llama": (dict(type="causal_lm", context=12), LLAMA, lm_batch, 2),
    "gpt2": (dict(type="causal_lm", context=12), GPT2, lm_batch, 2),
    "mae": (dict(type="mae", probe=None), MAE, mae_batch, 3 + 2),
}
NEEDS = {"clip": "open_clip", "llama": "transformers", "gpt2": "transformers", "mae": "mmpretrain"}


def stage(kind: str, **performance: Any) -> StageModel:
    paradigm, model, _, _ = KINDS[kind]
    return StageModel(paradigm, dict(name="a", model=model), performance=performance, seed=1)


def blocks(kind: str) -> list[Any]:
    """Return the classes of a model's blocks, which are those whose forward is replaced."""
    return [type(m) for m in stage(kind, grad_checkpointing=True).modules() if "forward" in vars(m)]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


@pytest.fixture
def calls(kind, monkeypatch) -> Counter:
    """How often each block's forward is run, by the block."""
    counted: Counter = Counter()

    def count(forward):
        def run(self, *args, **kwargs):
            counted[id(self)] += 1
            return forward(self, *args, **kwargs)

        return run

    for cls in set(blocks(kind)):
        monkeypatch.setattr(cls, "forward", count(cls.forward))
    return counted


def step(model: StageModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, with dropout drawn from one seed."""
    torch.manual_seed(5)
    loss = model(mode="loss", **copy.deepcopy(batch))["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "performance",
    [{}, dict(attention="math"), dict(precision="bf16")],
    ids=["plain", "math", "bf16"],
)
def test_losses_and_gradients_are_the_same_bit_for_bit(kind, performance):
    torch.manual_seed(0)
    batch = KINDS[kind][2]()
    (loss, gradients), (again, recomputed) = (
        step(stage(kind, grad_checkpointing=on, **performance).train(), batch)
        for on in (False, True)
    )
    assert torch.equal(loss, again)
    assert gradients.keys() == recomputed.keys()
    assert any(g.any() for g in gradients.values())
    different = [name for name in gradients if not torch.equal(gradients[name], recomputed[name])]
    assert not different


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "clip"], indirect=True)
def test_dropout_is_really_on(kind):
    """Else the test above would not see a recomputation that drops other units.

    CLIP's blocks have no dropout.
    """
    batch = KINDS[kind][2]()
    torch.manual_seed(1)
    model = stage(kind, grad_checkpointing=True).train()
    losses = {model(mode="loss", **copy.deepcopy(batch))["loss"].item() for _ in range(2)}
    assert len(losses) == 2


def test_blocks_run_twice_in_training_and_once_without_gradients(kind, calls):
    batch, number = KINDS[kind][2](), KINDS[kind][3]
    model = stage(kind, grad_checkpointing=True).train()
    step(model, batch)
    assert sorted(calls.values()) == [2] * number
    calls.clear()
    with torch.no_grad():
        model.eval()(mode="loss", **copy.deepcopy(batch))
    assert sorted(calls.values()) == [1] * number
    calls.clear()
    step(stage(kind).train(), batch)
    assert sorted(calls.values()) == [1] * number


def test_names_in_the_state_dict_stay(kind):
    plain, model = stage(kind), stage(kind, grad_checkpointing=True)
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)


def test_an_export_of_a_recomputed_model_loads(kind, tmp_path):
    model = stage(kind, grad_checkpointing=True)
    model.paradigm.export(model.student, tmp_path)
    loaded = model.paradigm.load(tmp_path).state_dict()
    assert all(
        torch.equal(value, loaded[name]) for name, value in model.student.state_dict().items()
    )


def test_a_copy_runs_its_own_blocks():
    """An average of the weights is such a copy, whose weights then go their own way."""
    model = ToyNet(8, 2, dropout=0.0)
    Performance(grad_checkpointing=True).prepare(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.blocks.parameters():
            p.zero_()
    x = torch.randn(2, 8)
    assert torch.equal(other.features(x), other.norm(other.embed(x)))
    assert not torch.equal(model.features(x), model.norm(model.embed(x)))


def test_less_is_kept_for_the_backward_pass():
    """The hidden units, twice as wide as the stream, are not among what autograd saves."""

    def num_saved(recompute: bool) -> int:
        sizes = []
        model = ToyNet(16, 4).train()
        Performance(grad_checkpointing=recompute).prepare(model)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            model(torch.randn(64, 8))
        return sum(sizes)

    assert num_saved(True) < num_saved(False) / 2
