"""What layouts can say beyond one product of axes a dimension, by hand and on small modules."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from compt import LAYOUTS, GrowthError, Layout, LayoutError, describe, grow
from compt.growth.matching import matching, source_block
from compt.growth.optimizer_state import grow_state
from compt.growth.patterns import TensorAxes, parse
from compt.testing.contracts import randomised


@contextmanager
def described_by(module, **said):
    """Register a layout for a module's class that says what is given, methods as values."""
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    methods = {"sizes", "multipliers", "periods", "axis_aliases"}
    members = {
        key: (lambda self, module, value=value: value) if key in methods else value
        for key, value in said.items()
    }
    LAYOUTS.register_module(name=path, module=type("SaidLayout", (Layout,), members))
    try:
        yield
    finally:
        LAYOUTS.module_dict.pop(path)


class Fused(nn.Module):
    """Grouped queries, one projection for q, k and v of heads of 2 units."""

    def __init__(self, width, kv, group):
        super().__init__()
        self.qkv = nn.Linear(width, 2 * kv * (group + 2))
        self.out = nn.Linear(2 * kv * group, width)


FUSED = {
    "qkv.*": "(kv group head_dim | kv head_dim | kv head_dim) <- embed",
    "out.*": "embed <- (kv group head_dim)",
}
ROLES = {"kv": "hidden", "group": "hidden"}


def fused(width, kv, group):
    torch.manual_seed(0)
    return Fused(width, kv, group).double()


def test_sections_of_one_tensor_are_described_and_sizes_are_solved():
    with described_by(fused(4, 2, 3), patterns=FUSED, roles=ROLES, sizes={"kv": 2, "group": 3}):
        arch = describe(fused(4, 2, 3))
    qkv = arch.params["qkv.weight"]
    assert arch.sizes == {"kv": 2, "group": 3, "head_dim": 2, "embed": 4}
    assert qkv.groups == (("kv group head_dim | kv head_dim | kv head_dim",), ("embed",))
    assert [section.groups[0] for section in qkv.sections] == [
        ("kv", "group", "head_dim"),
        ("kv", "head_dim"),
        ("kv", "head_dim"),
    ]
    assert arch.section_lengths(qkv) == [12, 4, 4]
    assert arch.shape(qkv) == (20, 4)
    assert qkv.axes == ("kv", "group", "head_dim", "embed")
    assert qkv.directions[-1] == ("embed", "reads")


def test_sections_grow_apart():
    """In heads of 2: q0 q1 | k0 | v0 becomes q0 q1 new | k0 | v0, not one leading block."""
    source, target = fused(4, 1, 2), fused(4, 1, 3)
    with torch.no_grad():
        source.qkv.bias.copy_(torch.arange(8.0))
        target.qkv.bias.fill_(-1)
    with described_by(source, patterns=FUSED, roles=ROLES, sizes={"head_dim": 2, "kv": 1}):
        growth = grow(source, target, "leading_block")
    assert target.qkv.bias.tolist() == [0, 1, 2, 3, -1, -1, 4, 5, 6, 7]
    assert growth.params["qkv.bias"] == "expanded"


def test_a_corner_of_sections_as_one_is_refused():
    with (
        described_by(fused(4, 1, 2), patterns=FUSED, roles=ROLES, sizes={"head_dim": 2, "kv": 1}),
        pytest.raises(GrowthError, match=r"'qkv\.weight' concatenates kv group head_dim \| kv"),
    ):
        grow(fused(4, 1, 2), fused(4, 1, 3), dict(type="leading_block", fused="whole"))


def test_moments_of_sections_grow_apart():
    source, target = fused(4, 1, 2), fused(4, 2, 2)
    state = {"exp_avg:qkv.bias": torch.arange(8.0), "step:qkv.bias": torch.tensor(3.0)}
    with described_by(source, patterns=FUSED, roles=ROLES, sizes={"head_dim": 2, "group": 2}):
        grown = grow_state(source, target, dict(type="clone", noise=0.5), state)
    # two groups: q of both, then k of both, then v; gradients of copies are shared out
    expected = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7]
    assert grown["exp_avg:qkv.bias"].tolist() == [value / 2 for value in expected]
    assert grown["step:qkv.bias"] == 3


class Stages(nn.Module):
    """A stack whose first block alone maps 3 inputs to the width."""

    def __init__(self, depth, width=4):
        super().__init__()
        widths = [3, *[width] * (depth - 1)]
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"fc": nn.Linear(size, width), "out": nn.Linear(width, width)})
            for size in widths
        )


STAGES = {
    "blocks.{block}.fc.*": "mlp <- embed",
    "blocks.{first}.fc.*": "mlp <- 3",
    "blocks.{block}.out.*": "embed <- mlp",
}


def stages(depth, width=4):
    torch.manual_seed(depth)
    return randomised(Stages(depth, width).double())


@pytest.mark.parametrize(
    ("small", "large", "sources"),
    [
        (1, 3, [0, None, None]),
        (2, 4, [0, 1, 1, 1]),
        (3, 5, [0, 1, 1, 2, 2]),
        (3, 3, [0, 1, 2]),
    ],
)
def test_further_blocks_never_grow_from_the_first(small, large, sources):
    source, target = stages(small), stages(large)
    fresh = {name: param.clone() for name, param in target.named_parameters()}
    with described_by(source, patterns=STAGES):
        archs = describe(source), describe(target)
        growth = grow(source, target)
    assert archs[1].depths == {"blocks": large}
    assert archs[1].first_blocks == {"blocks"}
    params = archs[1].params
    for part in ("fc", "out"):
        picked = [matching(params[f"blocks.{i}.{part}.weight"], *archs) for i in range(large)]
        names = [f"blocks.{i}.{part}.weight" if i is not None else None for i in sources]
        assert [match and match.name for match in picked] == names
    assert not growth.dropped
    for block, picked in enumerate(sources):
        new = picked is None or picked in sources[:block]
        assert target.blocks[block]["out"].weight.any() == (not new)
        if picked is None:
            assert torch.equal(
                target.blocks[block]["fc"].weight, fresh[f"blocks.{block}.fc.weight"]
            )
            assert growth.params[f"blocks.{block}.fc.weight"] == "initialised"


def test_a_stack_may_begin_with_its_first_block_alone_and_widen():
    source, target = stages(1), stages(3, width=6)
    with described_by(source, patterns=STAGES):
        growth = grow(source, target, "clone")
    assert growth.counts["initialised"] == 8
    assert not target.blocks[2]["out"].weight.any()


@pytest.mark.parametrize("period", range(1, 6))
def test_blocks_are_filled_by_their_kind_in_order_and_none_is_lost(period):
    class Block(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.h = nn.ModuleList(nn.Linear(2, 2) for _ in range(depth))

    patterns = {"h.{block}.*": "embed <- embed"}
    with described_by(Block(1), patterns=patterns, periods={"h": period}):
        archs = {depth: describe(Block(depth)) for depth in range(period, 14)}
    for small, source in archs.items():
        for large in range(small, 14):
            params = archs[large].params.values()
            matches = [matching(param, source, archs[large]) for param in params if param.scope]
            blocks = [match.block for match in matches[::2]]
            assert all((block - i) % period == 0 for i, block in enumerate(blocks))
            first = sorted(range(len(blocks)), key=lambda i: (blocks.index(blocks[i]) != i, i))
            assert [blocks[i] for i in first[:small]] == list(range(small))
            if period == 1:
                assert blocks == [source_block(i, small, large) for i in range(large)]


class Scaled(nn.Module):
    """A table times the root of the width, a norm, and a head tied to the table or not."""

    def __init__(self, width, *, tied, factor=None):
        super().__init__()
        self.factor = width**0.5 if factor is None else factor
        self.table, self.norm = nn.Embedding(5, width), nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 5, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.norm(self.factor * self.table(tokens)))


SCALED = {
    "table.weight": "vocab -> embed",
    "norm.*": "embed @ head.weight",
    "head.weight": "vocab <- embed",
}


class ScaledLayout(Layout):
    patterns = SCALED

    def multipliers(self, module):
        return {"table.weight": module.factor}

    def probe(self, module, generator):
        return {"logits": module(torch.arange(5))}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("grower", ["lossless", "clone"])
@pytest.mark.parametrize("large", [dict(width=8), dict(width=12), dict(width=4, factor=7.0)])
def test_constants_that_change_with_the_size_are_made_up_for(large, grower, tied):
    path = f"{__name__}.Scaled"
    source, target = Scaled(4, tied=tied).double(), Scaled(**large, tied=tied).double()
    LAYOUTS.register_module(name=path, module=ScaledLayout)
    try:
        growth = grow(randomised(source), target, grower)
    finally:
        LAYOUTS.module_dict.pop(path)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


def read(pattern, shape, owner=None, **options):
    tensor = torch.zeros(shape) if isinstance(shape, tuple) else shape
    return parse(pattern, tensor, owner or nn.Module(), {}, where="name", **options)


def test_one_pattern_for_all_tensors_of_a_module():
    linear = nn.Linear(4, 6)
    weight, bias = (read("mlp <- embed", p, linear, of_module=True) for p in linear.parameters())
    assert weight == TensorAxes("weight", (("mlp",), ("embed",)), (1,), (0,))
    assert bias == TensorAxes("weight", (("mlp",),), (), (0,))
    transposed = read("embed -> (2 mlp)", (12,), of_module=True)
    assert transposed == TensorAxes("weight", (("2", "mlp"),), (), (0,))
    conv = read("scale: mlp 1 kernel", (6,), of_module=True)
    assert conv == TensorAxes("weight", (("mlp",),), (), (0,))
    gates = read("scale: (6 embed) <- cond", (24,), of_module=True)
    assert gates == TensorAxes("scale", (("6", "embed"),))
    assert read("mlp <- embed", torch.tensor(3), of_module=True) == TensorAxes("weight", ())


def test_a_layer_that_makes_factors_reads_and_writes_no_stream():
    assert read("scale: (6 embed) <- cond", (24, 4)) == TensorAxes(
        "scale", (("6", "embed"), ("cond",)), (1,)
    )


def test_tensors_of_batch_norms_are_known_by_class():
    norm = nn.BatchNorm2d(4)
    tensors = dict(norm.named_parameters()) | dict(norm.named_buffers())
    axes = {name: read("mlp", tensor, norm, of_module=True) for name, tensor in tensors.items()}
    assert {name: each.kind for name, each in axes.items()} == {
        "weight": "batch_norm_gain",
        "bias": "batch_norm_bias",
        "running_mean": "batch_norm_mean",
        "running_var": "batch_norm_variance",
        "num_batches_tracked": "weight",
    }
    assert {each.norm_axis for each in axes.values()} == {"mlp", None}
    assert not any(each.writes for each in axes.values())
    written = {n: read("mlp -> embed", t, norm, of_module=True) for n, t in tensors.items()}
    assert written["weight"].groups == written["bias"].groups == (("embed",),)
    assert written["running_mean"].groups == written["running_var"].groups == (("mlp",),)


WRONG = {
    "an open parenthesis": ("(heads | kv <- embed", (4, 4), "inside one pair of parentheses"),
    "bare sections": ("heads | kv", (4,), "inside one pair of parentheses"),
    "an empty section": ("(heads | ) <- embed", (4, 4), "inside one pair of parentheses"),
    "two concatenations": ("(a | b) <- (c | d)", (4, 4), "inside one pair of parentheses"),
    "a norm of sections": ("rms_norm_gain: (a | b)", (4,), "A norm over concatenated axes"),
    "a constant of sections": ("constant: (a | b)", (4,), "A norm over concatenated axes"),
    "an empty group": ("() embed", (1, 4), "'' in the pattern '.*' is no name of an axis"),
    "two arrows": ("a <- b <- c", (4, 4, 4), "'<-' in the pattern '.*' is no name of an axis"),
    "a comma": ("a, b", (4, 4), "'a,' in the pattern 'a, b' is no name of an axis"),
    "a norm of two dimensions": ("rms_norm_gain: a b", (4,), "has 2 dimensions"),
    "unknown braces": ("embed_{stage}", (4,), "has braces that its parameter's name lacks"),
    "empty braces": ("embed_{}", (4,), "has braces that its parameter's name lacks"),
    "an open brace": ("embed_{", (4,), "has braces that its parameter's name lacks"),
    "an unknown kind": ("scales: embed", (4,), "Unknown kind 'scales'"),
    "too few dimensions": ("embed", (4, 4), "has 1 dimensions, the tensor has shape"),
    "too many numbers": ("", (4,), "has 0 dimensions, the tensor has shape"),
}


@pytest.mark.parametrize("case", WRONG)
def test_patterns_that_cannot_be_read_are_refused_by_name(case):
    pattern, shape, message = WRONG[case]
    with pytest.raises(LayoutError, match=message) as refused:
        read(pattern, shape)
    assert refused.value.where == "name"


def test_a_kind_of_norm_for_all_tensors_of_a_module_is_refused():
    with pytest.raises(LayoutError, match="makes all tensors of a module the same part of a norm"):
        read("rms_norm_gain: embed", (4,), nn.LayerNorm(4), of_module=True)


PLAIN = {"fc.*": "mlp <- embed"}
SAID = {
    "an unknown role": (dict(roles={"mlp": "hiden"}), r"SaidLayout\.roles has .*'mlp': 'hiden'"),
    "a size of 0": (dict(sizes={"mlp": 0}), r"SaidLayout\.sizes\(\) has .*'mlp': 0"),
    "half a unit": (dict(sizes={"mlp": 1.5}), r"SaidLayout\.sizes\(\) has .*'mlp': 1\.5"),
    "a size that does not fit": (dict(sizes={"mlp": 5}), "a dimension of length 3 does not fit"),
    "a factor of 0": (dict(multipliers={"fc.*": 0.0}), r"multipliers\(\) has .*'fc\.\*': 0\.0"),
    "no number": (dict(multipliers={"fc.*": float("nan")}), r"multipliers\(\) has .*nan"),
    "of nothing": (dict(multipliers={"fc.weight": 2.0}), r"multipliers\(\) has .*'fc\.weight'"),
    "a period of 0": (dict(periods={"h": 0}), r"SaidLayout\.periods\(\) has .*'h': 0"),
    "no such stack": (dict(periods={"h": 2}), r"names \['h'\], and the stacks are \[\]"),
    "a factor without pattern": (
        dict(patterns={"fc.*": "mlp <- embed * ls.gama"}),
        r"SaidLayout says of 'fc\.\*' that 'ls.gama' acts on what it makes, and no pattern",
    ),
    "a reader without pattern": (
        dict(patterns={"fc.*": "mlp <- embed", "norm.weight": "embed @ haed.weight"}),
        "that 'haed.weight' acts on what it makes, and no pattern",
    ),
    "two kinds of block": (
        dict(patterns={"h.{block}.{first}.*": "mlp", **PLAIN}),
        "has both {first} and {block}",
    ),
    "a pattern that is never reached": (
        dict(patterns={"fc.*": "mlp <- embed", "fc.bias": "scale: mlp"}),
        r"'fc\.bias' in SaidLayout is never reached: 'fc\.\*' before it",
    ),
    "a pattern of another shape": (
        dict(patterns={"fc.*": "mlp <- (a b) embed"}),
        r"(?s)'mlp <- \(a b\) embed' has 3 dimensions.*\[3, 2\].*'fc\.weight' in SaidLayout",
    ),
    "an undescribed tensor": (dict(patterns={"fc.weight": "mlp <- embed"}), r"'fc\.bias' \[3\]"),
    "an axis without role": (dict(patterns={"fc.*": "wide <- embed"}), "'wide' of .* has no role"),
}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)


@pytest.mark.parametrize("case", SAID)
def test_what_a_layout_says_wrongly_is_refused_with_its_name(case):
    said, message = SAID[case]
    with (
        described_by(Plain(), **{"patterns": PLAIN, **said}),
        pytest.raises(LayoutError, match=message) as refused,
    ):
        describe(Plain())
    assert refused.value.do


def test_a_fused_tensor_is_no_other_fused_tensor():
    other = {**FUSED, "qkv.*": "(kv head_dim | kv group head_dim | kv head_dim) <- embed"}

    class Other(Fused):
        pass

    source, target = fused(4, 1, 2), Other(4, 1, 2).double()
    sizes = {"kv": 1, "head_dim": 2}
    with (
        described_by(source, patterns=FUSED, roles=ROLES, sizes=sizes),
        described_by(target, patterns=other, roles=ROLES, sizes=sizes),
        pytest.raises(GrowthError, match=r"'qkv\.weight' has the axes"),
    ):
        grow(source, target)
