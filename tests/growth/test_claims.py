"""What a growth claims is measured truth, with or without a probe, in every number format."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compt import LAYOUTS, Layout, grow
from compt.growth.axes import class_path
from compt.growth.measure import output_error, rounding_error
from compt.report.format import growth_text
from compt.report.growth import GrowthReport
from compt.testing.contracts import randomised
from compt.testing.growers.branches import branch_pair
from compt.testing.toy import ToyNet

GROWERS = ("lossless", "clone")


class Net(nn.Module):
    """A residual MLP with much that weights do not carry, and no probe."""

    def __init__(self, width, *, token=False, shift=False, act=F.gelu, eps=1e-5, scaled=False):
        super().__init__()
        self.embed, self.norm = nn.Linear(8, width), nn.LayerNorm(width, eps=eps)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head, self.act = nn.Linear(width, 3), act
        self.scale = width**0.5 if scaled else 1.0
        if token:
            self.token = nn.Parameter(torch.randn(width))
        if shift:
            self.register_buffer("shift", torch.arange(width).sin())

    def forward(self, x):
        stream = self.embed(x) * self.scale + getattr(self, "token", 0) + getattr(self, "shift", 0)
        stream = stream + self.fc2(self.act(self.fc1(self.norm(stream))))
        return self.head(self.norm(stream))


class Untold(Net):
    """A net whose input cannot be guessed."""

    def forward(self, *inputs):
        return super().forward(sum(inputs))


class Rounding(Net):
    """A net that casts to float32 within, as norms and softmax of outside models do."""

    def forward(self, x):
        stream = self.embed(x)
        normed = self.norm(stream).float().to(torch.float32)
        stream = stream + self.fc2(self.act(self.fc1(normed)).bfloat16().to(stream.dtype))
        logits = self.head(self.norm(stream).half().to(stream.dtype))
        return F.softmax(logits, -1, dtype=torch.float32)


class Attributed(Net):
    """A net that holds a number as a plain tensor, and makes others as it runs."""

    def __init__(self, width):
        super().__init__(width)
        self.mix = torch.linspace(0, 1, 64).reshape(8, 8)

    def forward(self, x):
        kept = torch.zeros(len(x), 8)
        kept[:] = x @ self.mix
        kept += torch.ones(8)
        return super().forward(kept)


class Compiled(Net):
    """A net with a layer that computes in its own number format alone."""

    def __init__(self, width, **options):
        super().__init__(width, **options)
        self.fc1 = torch.jit.script(self.fc1)


class Bare(Net):
    """A net whose last norm has no gain to make up for a wider stream."""

    def forward(self, x):
        return self.head(F.normalize(self.embed(x), dim=-1))


PATTERNS = {
    "embed.*": "embed <- 8",
    "norm.*": "embed",
    "fc1.*": "mlp <- embed",
    "fc2.*": "embed <- mlp",
    "head.*": "classes <- embed",
    "token": "embed",
    "shift": "constant:",
}


@pytest.fixture(autouse=True)
def layouts():
    """Register one layout for all of these nets."""
    nets = (Net, Untold, Rounding, Attributed, Compiled, Bare)
    for net in nets:
        layout = type(f"{net.__name__}Layout", (Layout,), {"patterns": PATTERNS})
        LAYOUTS.register_module(name=class_path(net), module=layout)
    yield
    for net in nets:
        LAYOUTS.module_dict.pop(class_path(net))


def grown(source, target, grower="lossless"):
    torch.manual_seed(1)
    return grow(randomised(source), target, grower)


@pytest.mark.parametrize("grower", GROWERS)
def test_a_claim_is_measured_where_a_layout_has_no_probe(grower):
    growth = grown(Net(8).double(), Net(16).double(), grower)
    assert growth.function_preserving and not growth.reason
    assert growth.error < 1e-12


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("net", [Net, Untold])
def test_a_dropped_tensor_refutes_the_claim_by_name(grower, width, net):
    growth = grown(net(8, token=True), net(width), grower)
    assert growth.dropped == ("token",) and not growth.function_preserving
    assert "nothing of the target is made from 'token' of the source" in growth.reason
    assert ("not measured" in growth.reason) is (net is Untold)


def test_a_dropped_tensor_that_is_measured_not_to_matter_is_no_obstacle():
    source = randomised(Net(8, token=True))
    nn.init.zeros_(source.token)
    assert grow(source, Net(16)).function_preserving
    assert not grow(source, Net(16, act=F.relu)).function_preserving


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grower", GROWERS)
def test_half_precision_is_measured_in_full(dtype, grower):
    """Rounding of the weights is no obstacle, and hides no tensor that is dropped."""
    growth = grown(Net(8).to(dtype), Net(16).to(dtype), grower)
    assert growth.function_preserving, growth.reason
    assert 0 < growth.error < 4 * torch.finfo(dtype).eps
    source = randomised(Net(8, token=True))
    with torch.no_grad():
        source.token.mul_(0.02)
    growth = grow(source.to(dtype), Net(16).to(dtype), grower)
    assert not growth.function_preserving and growth.error > 1e-4


def test_a_small_difference_is_seen_through_float32():
    growth = grown(Net(8), Net(16, eps=4e-5))
    assert not growth.function_preserving
    assert "'norm.eps': 1e-05 in the source, 4e-05 in the target" in growth.reason


@pytest.mark.parametrize("net", [Rounding, Attributed])
@pytest.mark.parametrize("default", [torch.float32, torch.float16])
def test_outside_models_compute_in_full_precision(net, default):
    source, target = randomised(net(8).double()), net(16).double()
    torch.set_default_dtype(default)
    try:
        growth = grow(source, target)
        assert torch.get_default_dtype() is default
    finally:
        torch.set_default_dtype(torch.float32)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_models_without_float64_are_measured_in_their_own_format():
    growth = grown(Compiled(8), Compiled(12))
    assert growth.function_preserving, growth.reason
    assert 0 < growth.error < 1e-5
    assert rounding_error(Compiled(8), Compiled(12), torch.float32) is None
    growth = grown(Compiled(8, token=True), Compiled(12))
    assert not growth.function_preserving


def test_modules_stay_as_they_were():
    source, target = randomised(Net(8)).train(), Net(16).train()
    grow(source, target)
    assert source.training and target.training
    assert all(
        param.dtype is torch.float32 for param in (*source.parameters(), *target.parameters())
    )
    state = torch.get_rng_state()
    output_error(source, target)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(act=F.relu), "'act': gelu in the source, relu in the target"),
        (dict(eps=1e-2), "'norm.eps': 1e-05 in the source, 0.01 in the target"),
    ],
)
@pytest.mark.parametrize("net", [Net, Untold])
def test_what_weights_do_not_carry_is_named(options, reason, net):
    growth = grown(net(8), net(16, **options))
    assert not growth.function_preserving
    assert reason in growth.reason


@pytest.mark.parametrize("net", [Net, Untold])
def test_constants_of_the_size_are_named(net):
    growth = grown(net(8, scaled=True), net(16, scaled=True))
    assert not growth.function_preserving
    assert "'scale': 2.828 in the source, 4 in the target" in growth.reason
    growth = grown(net(8, shift=True), net(16, shift=True))
    assert not growth.function_preserving
    assert "'shift': computed from the size" in growth.reason


def test_what_no_rule_knows_is_measured():
    growth = grown(Bare(8), Bare(12))
    assert not growth.function_preserving and growth.error > 1e-3
    assert "the layout says otherwise than they compute" in growth.reason


def test_what_cannot_be_measured_says_so():
    growth = grown(Untold(8), Untold(16))
    assert growth.function_preserving and growth.error is None
    assert "not measured" in growth.reason
    text = growth_text(GrowthReport.from_json({"grower": "lossless", **growth.to_dict()}))
    assert text == "keeps the function by its rules (not measured)"


def test_the_text_counts_what_is_dropped():
    growth = grown(Net(8, token=True), Net(16))
    text = growth_text(GrowthReport.from_json({"grower": "lossless", **growth.to_dict()}))
    assert "does not keep the function: the outputs differ by" in text
    assert text.endswith("; not used of the source: 1 tensor ('token')")


def test_outputs_of_zeros_prove_nothing():
    """A plain corner is no growth that keeps the function, though a head of zeros hides it."""
    source, target = randomised(Net(8)), Net(12)
    for net in (source, target):
        nn.init.zeros_(net.head.weight), nn.init.zeros_(net.head.bias)
    assert rounding_error(source, target, torch.float32) == 0
    growth = grow(source, target, "leading_block")
    assert growth.error == 0 and not growth.function_preserving


@pytest.mark.parametrize("grower", ["lossless", "clone", dict(type="stack", blocks="zero")])
@pytest.mark.parametrize("end", ["norm", "layer scale", "gate"])
def test_new_blocks_zero_the_last_of_a_branch_alone(end, grower):
    source, target = branch_pair(end)
    growth = grow(source, target, grower)
    assert growth.function_preserving and growth.error < 1e-12
    new = target.blocks[2]
    last = [new.factor] if end == "layer scale" else list(new.last.parameters())
    assert not any(param.any() for param in last)
    assert all(param.any() for param in (*new.fc1.parameters(), *new.fc2.parameters()))


@pytest.mark.parametrize("grower", ["lossless", "clone", dict(type="stack", blocks="zero")])
def test_a_norm_after_the_sum_stays_and_is_the_reason(grower):
    source, target = branch_pair("norm after the sum")
    growth = grow(source, target, grower)
    assert not growth.function_preserving
    assert 1e-6 < growth.error < 0.5
    assert "'blocks.{block}.last.weight' normalises the stream itself (post-norm)" in growth.reason
    new = target.blocks[2]
    assert torch.equal(new.last.weight, source.blocks[0].last.weight)
    assert not new.fc2.weight.any()


def test_what_is_zero_behind_a_factor_of_zero_starts_anew():
    source, target = branch_pair("layer scale")
    nn.init.zeros_(source.blocks[0].fc2.weight)
    grow(source, target)
    assert target.blocks[2].fc2.weight.any()
    assert not target.blocks[0].fc2.weight.any()


def test_blocks_that_share_their_weights_cannot_pass_their_input_on():
    class Shared(ToyNet):
        def __init__(self, depth):
            super().__init__(8, 1)
            self.blocks = nn.ModuleList([self.blocks[0]] * depth)

    source, target = randomised(Shared(1)), Shared(3)
    growth = grow(source, target)
    assert not growth.function_preserving
    assert "is the same tensor in all blocks" in growth.reason


def test_new_units_are_alive_where_the_target_begins_at_zero():
    source, target = randomised(Net(8)), Net(16)
    nn.init.zeros_(target.fc1.weight)
    grow(source, target)
    assert target.fc1.weight[16:].any(dim=1).all()
