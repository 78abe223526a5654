"""Self-distillation: contracts, the loss by hand, average and centre, growth and a chain."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compt_dino import BACKBONE, SelfDistillation
from compt_dino.model import Dino
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

import compt
from compt.testing import LayoutContract, ParadigmContract

HEAD = dict(hidden=24, bottleneck=8, prototypes=12, local=(2, 16))


def vit(width: int, depth: int) -> dict[str, Any]:
    """A member's model on images of 32 x 32 pixels."""
    return dict(img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 16)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Noisy squares of three colours."""
    folder, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
    for split, count in (("train", 24), ("val", 9)):
        for i in range(count):
            name, colour = list(colours.items())[i % 3]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            pixels = np.asarray(colour) + random.integers(-30, 30, (40, 36, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / split / name / f"{i}.png")
    return dict(type="folder", train=str(folder / "train"), val=str(folder / "val"))


def build(width: int, depth: int, seed: int = 0) -> tuple[SelfDistillation, Any]:
    """A paradigm and a model of it in eval mode, whose student has noise on all parameters."""
    paradigm = compt.PARADIGMS.build(dict(type="dino", **HEAD))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = paradigm.build_model(compt.Member("a", vit(width, depth))).eval()
        with torch.no_grad():
            for param in model.parameters():
                param.add_(0.05 * torch.randn_like(param))
    return paradigm, model


def crops(seed: int = 0, count: int = 3) -> compt.Batch:
    """A prepared batch of random crops."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "global": torch.rand(count, 2, 3, 32, 32, generator=generator),
        "local": torch.rand(count, 2, 3, 16, 16, generator=generator),
    }


class TestDino(ParadigmContract):
    """The interface, a chain and its resumption."""

    model, larger = vit(16, 1), vit(32, 2)

    @pytest.fixture(autouse=True)
    def _on_data(self, data: dict[str, Any]) -> None:
        self.paradigm = dict(type="dino", data=data, **HEAD)  # type: ignore[misc]


class TestModel(LayoutContract):
    """Student and teacher, another width and another depth."""

    def pair(self) -> tuple[Any, Any]:
        return build(16, 1)[1], build(32, 2)[1]


def test_the_loss_by_hand() -> None:
    """Of each global crop all others are predicted, itself left out."""
    paradigm, model = build(16, 1)
    batch = crops()
    outputs = paradigm.forward(model, batch)
    total, pairs = 0.0, 0
    for g in range(2):
        for c in range(4):
            if c == g:
                continue
            for b in range(3):
                crop = batch["global"][b : b + 1, c] if c < 2 else batch["local"][b : b + 1, c - 2]
                student = model.student(model.student.backbone(crop))[0] / 0.1
                seen = model.teacher(model.teacher.backbone(batch["global"][b : b + 1, g]))[0]
                target = ((seen - model.centre) / 0.04).softmax(0)
                total -= (target * student.log_softmax(0)).sum().item()
                pairs += 1
    assert paradigm.loss(outputs, batch)["self_distillation"].item() == pytest.approx(
        total / pairs, rel=1e-4
    )


def test_the_average_moves_ever_less_and_the_centre_follows_the_scores() -> None:
    """By the cosine of the paper, from 0.99 to 1."""
    paradigm, model = build(16, 1)
    outputs = {"score": torch.arange(24.0).reshape(2, 12)}
    for progress, share in ((0.0, 0.01), (0.5, 0.005), (1.0, 0.0)):
        before = model.teacher.prototypes.clone()
        with torch.no_grad():
            paradigm.after_step(model, outputs=outputs, progress=progress)
        expected = before + share * (model.student.prototypes - before)
        assert torch.allclose(model.teacher.prototypes, expected, atol=1e-6)
    mean = outputs["score"].mean(0)
    assert torch.allclose(model.centre, mean * (1 - 0.9**3))


def test_the_teacher_is_not_trained_and_not_counted() -> None:
    """A plan counts the student alone."""
    paradigm, model = build(16, 1)
    outputs = paradigm.forward(model, crops())
    paradigm.loss(outputs, crops())["self_distillation"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.student.parameters())
    plan = compt.plan(
        dict(
            paradigm=dict(type="dino", **HEAD),
            chain=[dict(name="a", model=vit(16, 1), iters=1)],
            train_dataloader=dict(batch_size=2),
        )
    )
    assert plan.stages[0].params == sum(p.numel() for p in model.student.parameters())


@pytest.mark.parametrize("grower", ["lossless", "clone"])
def test_growth_keeps_the_students_function_and_begins_the_average_anew(grower: str) -> None:
    """In float64, in width and depth."""
    (paradigm, small), (_, large) = build(16, 1), build(32, 3)
    growth = compt.grow(small.double(), large.double(), grower)
    assert growth.function_preserving, growth.reason
    paradigm.after_growth(large)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    scores = [model.student(model.student.backbone(images)) for model in (small, large)]
    assert torch.allclose(*scores, atol=1e-9)
    assert torch.equal(large.teacher(large.teacher.backbone(images)), scores[1])
    assert not large.centre.any()


def test_the_teachers_features_are_compared(data: dict[str, Any]) -> None:
    """A teacher that tells colours apart is right everywhere, whatever its student does."""
    paradigm = compt.PARADIGMS.build(dict(type="dino", data=data, **HEAD))
    model = paradigm.build_model(compt.Member("a", vit(16, 1)))
    model.teacher.backbone.forward = lambda images: images.mean((2, 3))
    model.student.backbone.forward = lambda images: images.new_zeros(len(images), 3)

    def batches_of(split: str) -> list[compt.Batch]:
        whole = paradigm.build_reference(split)
        raw = torch.utils.data.default_collate([whole[i] for i in range(len(whole))])
        return [paradigm.prepare(raw, generator=torch.Generator())]

    metric = paradigm.metrics(model, "val", batches_of("val"), batches_of=batches_of)["knn"]
    assert (metric.value, metric.chance) == (1.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        (dict(momentum=1.5), vit(16, 1), "momentum"),
        (dict(temperatures=(0.1, 0.0)), vit(16, 1), "temperature"),
        ({}, dict(vit(16, 1), widht=3), "widht"),
        ({}, dict(vit(16, 1), num_heads=3), "num_heads|divisible"),
    ],
)
def test_wrong_input_is_refused(options: Any, model: Any, message: str) -> None:
    """With what is wrong in it."""
    with pytest.raises(compt.ConfigError, match=message):
        SelfDistillation(**options).build_model(compt.Member("a", model))


def test_a_chain_learns_and_exports_the_teacher(data: dict[str, Any], tmp_path: Path) -> None:
    """What is measured and exported is the average, and timm loads it."""
    config = dict(
        paradigm=dict(type="dino", data=data, **HEAD),
        chain=[
            dict(name="a", model=vit(16, 1), iters=6),
            dict(name="b", model=vit(32, 2), iters=6),
        ],
        train_dataloader=dict(batch_size=8),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3), accumulative_counts=2),
        evaluations=1,
    )
    run = compt.train(config, work_dir=tmp_path / "run")
    manifest = json.loads((run / "02_b" / "manifest.json").read_text())
    assert manifest["growth"]["function_preserving"]
    assert 0 <= manifest["metrics"]["val/knn"]["value"] <= 1
    weights = load_file(run / "02_b" / "weights.safetensors")
    moved = weights["teacher.prototypes"] - weights["student.prototypes"]
    assert moved.abs().max() > 0 and math.isfinite(weights["centre"].sum())
    net = VisionTransformer(**vit(32, 2), num_classes=0)
    net.load_state_dict(load_file(run / "02_b" / "export" / BACKBONE))
    images = torch.rand(2, 3, 32, 32)
    ours = Dino(vit(32, 2), 24, 8, 12)
    ours.load_state_dict(weights)
    assert torch.allclose(net.eval()(images), ours.eval().teacher.backbone(images), atol=1e-6)
