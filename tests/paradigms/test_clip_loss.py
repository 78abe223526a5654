"""Compare loss, forward pass and gradients of CLIP with open_clip's own."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

open_clip = pytest.importorskip("open_clip")

from compt import grow
from compt.paradigms.clip.paradigm import Clip
from compt.training.stage import StageModel
from compt.weights import save_weights
from tests.paradigms.clip_models import (
    KINDS,
    MEAN,
    MODEL,
    STD,
    changed,
    made,
    prepared,
    raw,
    transform,
)
from tests.paradigms.conftest import CAPTIONS, SIZES, picture


def test_loss_by_hand():
    """Expect log(1 + exp(-1)) of two orthogonal pairs at scale 1.

    Swapped they are log(1 + exp(1)).
    """
    outputs = {
        "image_features": torch.eye(2),
        "text_features": torch.eye(2),
        "logit_scale": torch.tensor(1.0),
    }
    assert Clip().loss(outputs, {})["contrastive"].item() == pytest.approx(math.log1p(math.exp(-1)))
    swapped = {**outputs, "text_features": torch.eye(2).flip(0)}
    assert Clip().loss(swapped, {})["contrastive"].item() == pytest.approx(math.log1p(math.exp(1)))


def test_loss_equals_open_clips_and_a_written_out_one():
    generator = torch.Generator().manual_seed(0)
    image, text = (
        nn.functional.normalize(torch.randn(6, 5, generator=generator).double(), dim=1)
        for _ in "ab"
    )
    scale = torch.tensor(14.0, dtype=torch.float64)
    ours = Clip().loss({"image_features": image, "text_features": text, "logit_scale": scale}, {})
    total = 0.0
    for i in range(6):
        for query, answers in ((image[i], text), (text[i], image)):
            logits = [14 * float(query @ answer) for answer in answers]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    assert set(ours) == {"contrastive"}
    assert ours["contrastive"].item() == pytest.approx(total / 12, rel=1e-12)
    assert torch.equal(ours["contrastive"], open_clip.ClipLoss()(image, text, scale))


@pytest.mark.parametrize(("config", "cls"), KINDS)
def test_forward_equals_open_clips_on_its_own_preprocessing(config, cls, data):
    paradigm, model = made(config, data=data, mean=MEAN, std=STD)
    outputs = paradigm.forward(model, prepared(paradigm, raw(paradigm.build_dataset("val"))))
    assert type(model) is cls
    preprocess = transform(config["vision_cfg"]["image_size"])
    for i, size in enumerate(SIZES):
        image = preprocess(picture(i, size))[None]
        text = open_clip.get_tokenizer("ViT-B-32", context_length=12)([CAPTIONS[i]])
        for name, feature in (
            ("image", model.encode_image(image)),
            ("text", model.encode_text(text)),
        ):
            unit = feature[0] / feature[0].norm()
            assert torch.allclose(outputs[f"{name}_features"][i], unit, atol=1e-5), (name, size)
    assert outputs["logit_scale"].item() == pytest.approx(math.exp(model.logit_scale.item()))


@pytest.mark.parametrize(("config", "cls"), KINDS[:3])
def test_gradients_of_a_training_step_equal_open_clips(config, cls, data):
    """From raw samples through the stage, against model(image, text) and ClipLoss."""
    stage = StageModel(dict(type="clip", data=data), dict(name="a", model=config)).train()
    twin = cls(**{k: v for k, v in copy.deepcopy(config).items() if k != "custom_text"}).train()
    twin.load_state_dict(stage.student.state_dict())
    batch = raw(stage.paradigm.build_dataset("val"))
    losses = stage(mode="loss", **batch)
    losses["loss"].backward()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = transform(config["vision_cfg"]["image_size"], mean=mean, std=std)
    image = torch.stack([preprocess(picture(i, size)) for i, size in enumerate(SIZES)])
    loss = open_clip.ClipLoss()(*twin(image, batch["text"]))
    loss.backward()
    assert losses["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    ours, theirs = dict(stage.student.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, p in theirs.items():
        assert p.grad is not None and p.grad.any(), name
        assert torch.allclose(ours[name].grad, p.grad, rtol=1e-4, atol=1e-6), name


def test_a_lossless_clip_starts_with_a_transfer_loss_of_zero(data, tmp_path):
    """Grow both towers in width and depth with features of one width.

    There are no heads, and nothing to correct.
    """
    larger = changed(
        MODEL, vision_width=64, vision_layers=3, text_width=48, text_heads=3, text_layers=3
    )
    (_, small), (_, large) = made(MODEL), made(larger)
    assert grow(small, large).function_preserving
    files = {
        "small": str(tmp_path / "small.safetensors"),
        "large": str(tmp_path / "large.safetensors"),
    }
    save_weights(small, Path(files["small"]))
    save_weights(large, Path(files["large"]))
    teacher = dict(name="a", model=MODEL, weights=files["small"])
    losses = {}
    for init in (files["large"], None):
        stage = StageModel(
            dict(type="clip", data=data),
            dict(name="b", model=larger),
            teacher=teacher,
            transfer=dict(type="feature_mse", limit=None),
            init=init,
        ).train()
        assert not any("heads" in name for name in stage.state_dict())
        batch = raw(stage.paradigm.build_dataset("train"))
        losses[init] = stage(mode="loss", **batch)["transfer/feature_mse"].item()
    assert losses[files["large"]] < 1e-6
    assert losses[None] > 0.1


def test_the_logit_scale_is_clamped_after_a_step():
    paradigm, model = made()
    with torch.no_grad():
        for value, clamped in (
            (10.0, math.log(100)),
            (-1.0, 0.0),
            (2.5, 2.5),
            (math.log(100), math.log(100)),
        ):
            model.logit_scale.fill_(value)
            paradigm.after_step(model)
            assert model.logit_scale.item() == pytest.approx(clamped, rel=1e-6)
