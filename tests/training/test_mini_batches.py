"""Mini-batches change how much memory a step takes, and nothing that it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.interfaces.mini_batches import in_mini_batches
from compt.paradigms.clip import Clip
from compt.training.performance import Performance

CONFIG = dict(
    embed_dim=4,
    vision_cfg=dict(image_size=16, patch_size=8, width=16, layers=2, head_width=8),
    text_cfg=dict(context_length=6, vocab_size=32, width=16, layers=2, heads=2),
)


@pytest.fixture(scope="module")
def paradigm():
    return Clip()


@pytest.fixture
def model(paradigm):
    torch.manual_seed(0)
    return paradigm.build_model(Member("tiny", CONFIG)).double()


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(1)
    return dict(
        image=torch.randn(7, 3, 16, 16, generator=random, dtype=torch.float64),
        text=torch.randint(0, 32, (7, 6), generator=random),
        label=torch.arange(7),
        key=[f"sample {i}" for i in range(7)],
    )


def loss_and_gradients(paradigm, model, batch, **options):
    performance = Performance(**options)
    performance.prepare(model)
    model.zero_grad()
    with performance.context("cpu"):
        outputs = performance.divided(paradigm.forward)(model, batch)
        loss = paradigm.loss(outputs, batch)["contrastive"]
    loss.backward()
    return loss.item(), {name: param.grad.clone() for name, param in model.named_parameters()}


@pytest.mark.parametrize("size", [2, 3, 4, 6, 7, 100])
def test_a_contrastive_loss_and_its_gradients_are_those_of_the_whole_batch(
    paradigm, model, batch, size
):
    whole, gradients = loss_and_gradients(paradigm, model, batch)
    loss, divided = loss_and_gradients(paradigm, model, batch, mini_batch_size=size)
    assert loss == pytest.approx(whole, rel=1e-10)
    assert gradients.keys() == divided.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("options", [dict(grad_checkpointing=True), dict(attention="math")])
def test_other_options_hold_in_each_mini_batch(paradigm, model, batch, options):
    whole, gradients = loss_and_gradients(paradigm, model, batch, **options)
    loss, divided = loss_and_gradients(paradigm, model, batch, **options, mini_batch_size=3)
    assert loss == pytest.approx(whole, rel=1e-10)
    for name, gradient in gradients.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


def test_both_passes_have_the_precision(paradigm, model, batch):
    def dtypes(**options):
        seen = []
        model.float().visual.register_forward_hook(lambda *call: seen.append(call[2].dtype))
        floats = {**batch, "image": batch["image"].float()}
        loss_and_gradients(paradigm, model, floats, precision="bf16", **options)
        return seen

    assert dtypes(mini_batch_size=3) == [torch.bfloat16] * 8, "two looks, three pieces twice"


def test_activations_of_one_mini_batch_are_kept(paradigm, model, batch):
    def kept_bytes(**options):
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        forward = Performance(**options).divided(paradigm.forward)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = forward(model, batch)
        assert outputs["image_features"].requires_grad
        return sum(sizes)

    assert kept_bytes(mini_batch_size=2) < kept_bytes() / 10


def test_the_same_units_are_dropped_in_both_passes():
    torch.manual_seed(0)
    model = nn.Dropout(0.5)
    inputs = torch.ones(6, 100, requires_grad=True)
    forward = in_mini_batches(lambda model, batch: {"y": model(batch["x"]) * 1}, 2)
    outputs = forward(model, {"x": inputs})["y"]
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, outputs.detach())
    assert len({tuple(row.tolist()) for row in outputs}) == 6, "no two rows drop alike"


def test_looking_at_the_outputs_draws_no_random_numbers():
    def drawn(num_samples):
        torch.manual_seed(0)
        forward = in_mini_batches(lambda model, batch: {"y": model(batch["x"])}, 4)
        return forward(nn.Dropout(0.5), {"x": torch.ones(num_samples, 10)})["y"]

    torch.testing.assert_close(drawn(8)[:4], drawn(4))


def test_a_vector_as_long_as_a_mini_batch_is_no_row_of_samples():
    weights = nn.Parameter(torch.ones(2))

    def forward(model, batch):
        return {"weights": weights * 3, "y": batch["x"]}

    outputs = in_mini_batches(forward, 2)(nn.Identity(), {"x": torch.arange(6.0)})
    assert outputs["weights"].tolist() == [3, 3] and outputs["y"].tolist() == list(range(6))


def test_nested_batches_are_divided():
    def forward(model, batch):
        assert len(batch["views"][0]) == len(batch["names"]) == len(batch["more"]["z"])
        return {"y": batch["views"][0] + batch["views"][1] * batch["scale"] + batch["more"]["z"]}

    batch = dict(
        views=[torch.arange(5.0), torch.ones(5)],
        names=list("abcde"),
        more=dict(z=torch.zeros(5)),
        scale=torch.tensor(10.0),
    )
    outputs = in_mini_batches(forward, 2)(nn.Identity(), batch)
    assert outputs["y"].tolist() == [10, 11, 12, 13, 14]


def test_a_batch_with_other_rows_is_refused():
    forward = in_mini_batches(lambda model, batch: {"y": batch["x"]}, 2)
    with pytest.raises(ConfigError, match=r"batch\.x: 4, batch\.crops: 8"):
        forward(nn.Identity(), {"x": torch.ones(4), "crops": torch.ones(8)})
    with pytest.raises(ConfigError, match="none"):
        forward(nn.Identity(), {"x": 1})


def test_batch_norms_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match=r"1 batch norms \('1'\)"):
        Performance(mini_batch_size=2).prepare(model)
    Performance().prepare(model)
