"""The loss by hand, by open_clip, by the paper's formula, and over several processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from compt_siglip import SigLip
from open_clip.loss import SigLipLoss
from siglip_models import CUSTOM, MODEL, PUBLISHED, batch_of, build, outputs_of, written_out
from torch import Tensor
from two_and_three import SIZES, gradients, train, whole

NAMES = ("image_features", "text_features", "logit_scale", "logit_bias")


def test_two_pairs_by_hand() -> None:
    """Similarities 0.6, 0.8 / 0.8, -0.6 have the logits 0.2, 0.6 / 0.6, -2.2.

    The scale is 2, and the bias -1.
    """
    outputs = {
        "image_features": torch.eye(2),
        "text_features": torch.tensor([[0.6, 0.8], [0.8, -0.6]]),
        "logit_scale": torch.tensor(2.0, requires_grad=True),
        "logit_bias": torch.tensor(-1.0, requires_grad=True),
    }
    terms = SigLip().loss(outputs, {})
    assert list(terms) == ["sigmoid"]
    # -log sigmoid: 0.5981 of 0.2, 2.3051 of -2.2 (the pairs), 1.0375 of -0.6, twice (the others);
    # over two images
    assert terms["sigmoid"].item() == pytest.approx(
        (0.598139 + 2.305083 + 2 * 1.037488) / 2, abs=1e-6
    )
    terms["sigmoid"].backward()
    # to the logits: -0.4502 and -0.9003 from the pairs, 0.6457 from each of the others
    pairs, others = (-0.450166, -0.900250), 0.645656
    assert outputs["logit_bias"].grad.item() == pytest.approx(
        (sum(pairs) + 2 * others) / 2, abs=1e-6
    )
    by_scale = 0.6 * pairs[0] - 0.6 * pairs[1] + 2 * 0.8 * others
    assert outputs["logit_scale"].grad.item() == pytest.approx(by_scale / 2, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (90.0, -30.0), (3.0, 2.0)])
def test_the_loss_is_the_papers_and_open_clips(count: int, scale: float, bias: float) -> None:
    """Value and gradients, in float64."""
    ours, theirs = (outputs_of(count, scale=scale, bias=bias) for _ in range(2))
    loss = SigLip().loss(ours, {})["sigmoid"]
    expected = SigLipLoss()(*(theirs[name] for name in NAMES))
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(written_out(ours), rel=1e-12)
    assert torch.equal(loss, expected)
    assert all(torch.equal(ours[name].grad, theirs[name].grad) for name in NAMES)


def test_gradients_are_those_of_small_differences() -> None:
    """Of the formula as it is written out, for each number that the loss depends on."""
    outputs = outputs_of(4)
    SigLip().loss(outputs, {})["sigmoid"].backward()
    for name in NAMES:
        values, grad = outputs[name].detach().view(-1), outputs[name].grad.view(-1)
        for i in range(len(values)):
            around = []
            for step in (1e-6, -1e-6):
                moved = values.clone()
                moved[i] += step
                around.append(written_out({**outputs, name: moved.view(outputs[name].shape)}))
            assert grad[i].item() == pytest.approx((around[0] - around[1]) / 2e-6, abs=1e-7), (
                name,
                i,
            )


def test_logits_are_not_rounded_under_autocast() -> None:
    """The loss of the same features stays what it is in float32.

    bfloat16 has steps of 1/16 at -10.
    """
    outputs = {
        name: value.detach().float()
        for name, value in outputs_of(16, scale=10.0, bias=-10.0).items()
    }
    exact = SigLip().loss(outputs, {})["sigmoid"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(SigLip().loss(outputs, {})["sigmoid"], exact)
        rounded = {**outputs, **{name: outputs[name].bfloat16() for name in NAMES[:2]}}
        loss = SigLip().loss(rounded, {})["sigmoid"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(written_out(rounded), rel=1e-6)


@pytest.mark.parametrize(
    "model", [MODEL, CUSTOM, PUBLISHED], ids=["own", "custom_text", "published"]
)
def test_a_step_is_open_clips(model: dict[str, Any], data: dict[str, Any]) -> None:
    """Outputs, loss and every gradient, against what the model itself returns and SigLipLoss."""
    paradigm, net = build(model, data=data)
    batch = batch_of(paradigm)
    outputs = paradigm.forward(net, batch)
    assert set(outputs) == paradigm.outputs == set(NAMES)
    loss = paradigm.loss(outputs, batch)["sigmoid"]
    loss.backward()
    ours = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    theirs = net(batch["image"], batch["text"])
    assert all(torch.equal(outputs[name], value) for name, value in zip(NAMES, theirs, strict=True))
    expected = SigLipLoss()(*theirs)
    expected.backward()
    assert torch.equal(loss, expected)
    for name, param in net.named_parameters():
        assert param.grad.any(), f"{name} has no gradient to compare"
        assert torch.equal(ours[name], param.grad), name


def test_the_scale_is_clamped_after_a_step_and_the_bias_is_free() -> None:
    """To [0, ln 100]."""
    paradigm, net = build()
    with torch.no_grad():
        for value, clamped in ((10.0, math.log(100)), (-1.0, 0.0), (2.5, 2.5)):
            net.logit_scale.fill_(value)
            net.logit_bias.fill_(-123.0)
            paradigm.after_step(net)
            assert net.logit_scale.item() == pytest.approx(clamped, rel=1e-6)
            assert net.logit_bias.item() == -123.0


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in three processes, then in two of them, and return what they wrote."""
    folder = tmp_path_factory.mktemp("shares")
    train(str(folder))
    return folder


@pytest.mark.parametrize("world_size", SIZES)
def test_several_processes_have_the_loss_and_gradients_of_the_whole_batch(
    shares: Path, world_size: int
) -> None:
    """The mean of their losses, and on each of them every gradient."""
    loss, expected = gradients(*whole())
    by_rank: list[Mapping[str, Any]] = [
        torch.load(shares / f"{world_size}_{rank}.pt") for rank in range(world_size)
    ]
    mean = torch.stack([share["loss"] for share in by_rank]).mean()
    assert mean.item() == pytest.approx(loss.item(), rel=1e-6)
    assert len({share["loss"].item() for share in by_rank}) == world_size, (
        "every process has its own images"
    )
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        assert largest > 0, f"{name} has no gradient to compare"
        for share in by_rank:
            error: Tensor = (share["gradients"][name] - gradient).abs().max()
            assert error.item() <= 2e-6 * largest + 1e-9, f"{name}: {error.item() / largest:.1e}"
