"""Share one mask between teacher and student of a stage, and compare their features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.paradigms.mae_models import (
    PATCH,
    PATCHES,
    SIZE,
    built,
    classifier,
    made,
    mae,
    raw,
    simmim,
)

# isort: split
from compt import ConfigError, grow
from compt.interfaces import Member
from compt.training.stage import StageModel
from compt.weights import save_weights
from tests.training.conftest import MSE, at


def with_feature(
    transfer=MSE, *, student=None, teacher=None, tmp_path, init=None, weights=None, **options
) -> StageModel:
    """Return a stage of one size with a teacher of another.

    `init` and `weights` are models to take weights from.
    """
    paradigm, files = options.pop("paradigm", dict(type="mae")), {}
    for name, model in (
        ("init", init),
        ("weights", weights or made(teacher or mae(16, 1), seed=5)[1]),
    ):
        files[name] = None if model is None else str(tmp_path / f"{name}.safetensors")
        if model is not None:
            save_weights(model, tmp_path / f"{name}.safetensors")
    return StageModel(
        paradigm,
        dict(name="large", model=student or mae()),
        teacher=dict(name="small", model=teacher or mae(16, 1), weights=files["weights"]),
        transfer=transfer,
        init=files["init"],
        **options,
    )


def masks(stage: StageModel, iteration: int) -> list[torch.Tensor]:
    """Which patches student and teacher do not see at an iteration."""
    seen = []
    models = (stage.student, *stage.teachers())
    hooks = [
        m.backbone.register_forward_hook(lambda _, inputs, output: seen.append(output[1]))
        for m in models
    ]
    at(stage, iteration)(mode="loss", **raw())
    for hook in hooks:
        hook.remove()
    return seen


def test_teacher_and_student_see_the_same_mask_and_another_one_each_time(tmp_path):
    stage = with_feature(tmp_path=tmp_path, seed=3)
    drawn = [masks(stage, iteration) for iteration in (0, 1, 0)]
    assert all(len(pair) == 2 and torch.equal(*pair) for pair in drawn)
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][0], drawn[2][0])
    torch.manual_seed(99)
    resumed = with_feature(tmp_path=tmp_path, seed=3)
    assert torch.equal(masks(resumed, 1)[0], drawn[1][0])
    assert not torch.equal(masks(with_feature(tmp_path=tmp_path, seed=4), 1)[0], drawn[1][0])


def test_the_stages_teacher_runs_no_decoder(tmp_path):
    stage = with_feature(tmp_path=tmp_path)
    calls = []
    for model in (stage.student, *stage.teachers()):
        model.neck.register_forward_hook(lambda module, *_: calls.append(module))
    stage(mode="loss", **raw())
    assert calls == [stage.student.neck]


@pytest.mark.parametrize("names", [("tokens",), ("pooled",), ("tokens", "pooled")])
def test_feature_mse_compares_tokens_and_pooled_through_projections(tmp_path, names):
    """Work out the loss again.

    Unit-length features of both encoders behind one mask are summed over the width.
    """
    transfer = (
        dict(MSE, features=list(names)) if len(names) == 1 else MSE
    )  # both are the paradigm's own
    stage = with_feature(transfer, tmp_path=tmp_path).eval()
    losses = at(stage, 2)(mode="loss", **raw())
    batch = stage.paradigm.prepare(raw(), generator=stage.generator(), draws=stage.draws())
    own, goal = (
        stage.paradigm.forward(model, batch) for model in (stage.student, stage.teacher.model)
    )
    assert set(stage.transfer.heads) == set(names)
    terms = []
    for name in names:
        head = stage.transfer.heads[name]
        assert head.weight.shape == (16, 32)
        unit = [f / f.norm(dim=-1, keepdim=True) for f in (head(own[name]), goal[name])]
        terms.append((unit[0] - unit[1]).square().sum(-1).mean().item())
    assert losses["transfer/feature_mse"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert losses["task/loss"].item() == own["loss"].item()
    losses["loss"].backward()
    assert all(parameter.grad.any() for parameter in stage.transfer.parameters())
    trained = [p for p in stage.student.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.any() for p in trained)


def test_a_lossless_student_starts_with_a_transfer_loss_of_zero(tmp_path):
    _, small = made(mae(32, 1))
    paradigm, large = made(mae(32, 3, 32, 2))
    assert grow(small, large).function_preserving
    stage = with_feature(
        tmp_path=tmp_path, student=mae(32, 3, 32, 2), teacher=mae(32, 1), init=large, weights=small
    )
    losses = stage.train()(mode="loss", **raw())
    assert losses["transfer/feature_mse"].item() < 1e-10
    batch = stage.paradigm.prepare(raw(), generator=stage.generator(), draws=stage.draws())
    assert losses["task/loss"].item() == pytest.approx(
        paradigm.forward(small, batch)["loss"].item(), rel=1e-4
    )
    fresh = with_feature(
        tmp_path=tmp_path, student=mae(32, 3, 32, 2), teacher=mae(32, 1), weights=small
    )
    assert fresh(mode="loss", **raw())["transfer/feature_mse"].item() > 0.01


@pytest.mark.parametrize(
    "performance", [dict(grad_checkpointing=True), dict(precision="bf16"), dict(attention="math")]
)
def test_switches_change_the_cost_and_not_the_loss(tmp_path, performance):
    losses, gradients = [], []
    for options in ({}, performance):
        stage = with_feature(tmp_path=tmp_path, performance=options, seed=1)
        loss = stage(mode="loss", **raw())["loss"]
        loss.backward()
        losses.append(loss.item())
        gradients.append(stage.student.backbone.patch_embed.projection.weight.grad)
    close = dict(rel=0.05) if "precision" in performance else dict(rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], **close)
    assert nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0) > 0.99


def of_larger_images() -> dict:
    """Return an MAE for images twice as high and wide, of as many patches."""
    model = mae(size=2 * SIZE)
    for part in ("backbone", "neck", "head"):
        model[part]["patch_size"] = 2 * PATCH
    model["neck"]["num_patches"] = PATCHES
    return model


@pytest.mark.parametrize("needs", [{"tokens", "pooled"}, {"loss"}])
def test_a_teacher_of_smaller_images_sees_the_same_patches_resized(needs):
    paradigm, student = made(of_larger_images(), own_image_sizes=True)
    teacher = built(paradigm, mae(16, 1), name="b")
    generator = torch.Generator().manual_seed(0)
    batch = dict(paradigm.prepare(paradigm.example_batch(student, 2), generator=generator))
    assert batch["inputs"].shape[-2:] == (2 * SIZE, 2 * SIZE)
    batch["inputs"] = torch.randn(batch["inputs"].shape, generator=generator)
    half = F.interpolate(batch["inputs"], (SIZE, SIZE), mode="bicubic", antialias=True)
    with torch.no_grad():
        theirs = paradigm.teacher_forward(teacher, batch, frozenset(needs))
        ours = paradigm.forward(student, batch)
        expected = paradigm.forward(teacher, {**batch, "inputs": half})
    assert all(torch.equal(theirs[name], expected[name]) for name in needs)
    assert theirs.get("tokens", ours["tokens"]).shape[1] == ours["tokens"].shape[1]


def test_image_sizes_are_ones_own_where_patches_are_as_many():
    paradigm, _ = made(of_larger_images(), own_image_sizes=True)
    with pytest.raises(ConfigError, match="number of patches 64, the members before it 16"):
        paradigm.build_model(Member("b", mae(size=2 * SIZE)))
    with pytest.raises(ConfigError, match="has image size"):
        paradigm.build_model(Member("b", simmim()))
    with pytest.raises(ConfigError, match="has image size"):
        made(of_larger_images())[0].build_model(Member("b", mae()))


def test_a_classifier_learns_from_one_of_smaller_images(tmp_path):
    stage = with_feature(
        tmp_path=tmp_path,
        student=classifier(size=2 * SIZE),
        teacher=classifier(16, 1),
        weights=made(classifier(16, 1))[1],
        paradigm=dict(type="mae", own_image_sizes=True),
    )
    losses = stage(mode="loss", **raw(size=2 * SIZE, labels=[0, 1, 2, 0]))
    losses["loss"].backward()
    assert 0 < losses["transfer/feature_mse"].item() < 4
    assert all(parameter.grad.any() for parameter in stage.transfer.parameters())
