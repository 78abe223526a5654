"""What authors outside write: layouts in few lines, with which growth is exact or says why not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from compt import LAYOUTS, PARADIGMS, GrowthError, describe, grow
from compt.growth.axes import find_layout
from compt.growth.optimizer_state import grow_state
from compt.testing import LayoutContract, ParadigmContract
from compt.testing.contracts import randomised

transformers = pytest.importorskip("transformers")

from tests.code_lines import code_lines
from tests.layouts.outside import dit, dit_model

OUTSIDE = Path(__file__).parent / "outside"
REGISTERED = {
    "tests.layouts.outside.dit_model.DiT": dit.DitLayout,
}


@pytest.fixture(autouse=True, scope="module")
def installed():
    """Register what the packages' entry points would."""
    for name, layout in REGISTERED.items():
        LAYOUTS.register_module(name=name, module=layout)
    PARADIGMS.register_module(name="dit", module=dit.Diffusion)
    yield
    for name in REGISTERED:
        LAYOUTS.module_dict.pop(name)
    PARADIGMS.module_dict.pop("dit")


def language_model(name, **config):
    """Return a small model of transformers with fresh weights, in float64."""
    torch.manual_seed(0)
    ids = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config = getattr(transformers, f"{name}Config")(vocab_size=61, **ids, **config)
    return getattr(transformers, f"{name}ForCausalLM")(config).double()


def grouped(name, width, depth, heads, kv, mlp, **options):
    sizes = dict(hidden_size=width, num_hidden_layers=depth, intermediate_size=mlp, head_dim=8)
    heads = dict(num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=32)
    return language_model(name, **sizes, **heads, **options)


def gemma(width, depth, heads, kv, mlp, scalar=16, **options):
    """Return a Gemma 2 whose window is shorter than the probe's tokens."""
    options |= dict(query_pre_attn_scalar=scalar, sliding_window=4)
    return grouped("Gemma2", width, depth, heads, kv, mlp, **options)


def gpt_j(width, depth, mlp=None, **options):
    sizes = dict(n_embd=width, n_layer=depth, n_head=width // 8, n_inner=mlp)
    return language_model("GPTJ", rotary_dim=4, n_positions=32, **sizes, **options)


def mamba(width, depth, heads, groups):
    sizes = dict(hidden_size=width, num_hidden_layers=depth, num_heads=heads, n_groups=groups)
    expand = heads * 8 // width
    return language_model("Mamba2", head_dim=8, expand=expand, state_size=4, chunk_size=8, **sizes)


def diffusion(width, depth):
    torch.manual_seed(0)
    return dit_model.DiT(width, depth).double()


OLMO = partial(grouped, "Olmo2")
EXACT = {
    "olmo2, wide": (OLMO, (32, 2, 4, 2, 48), (64, 2, 8, 4, 96), {}),
    "olmo2, deep": (OLMO, (32, 2, 4, 2, 48), (32, 5, 4, 2, 48), {}),
    "olmo2, both": (OLMO, (32, 2, 4, 2, 48), (64, 3, 16, 4, 100), dict(tie_word_embeddings=True)),
    "gemma2, wide": (gemma, (32, 2, 4, 2, 48), (64, 2, 8, 4, 96, 32), {}),
    "gemma2, deep": (gemma, (32, 3, 4, 2, 48), (32, 6, 4, 2, 48), {}),
    "gemma2, both": (gemma, (32, 2, 4, 2, 48), (64, 4, 8, 2, 100, 8), {}),
    "gemma2, untied": (
        *(gemma, (32, 2, 4, 2, 48), (48, 4, 6, 2, 100, 8)),
        dict(tie_word_embeddings=False),
    ),
    "gemma2, another width": (gemma, (32, 2, 4, 2, 48), (48, 3, 6, 2, 96), {}),
    "gptj, wide": (gpt_j, (32, 2), (64, 2), {}),
    "gptj, deep": (gpt_j, (32, 2), (32, 5), {}),
    "gptj, both": (gpt_j, (32, 2), (64, 4, 300), dict(tie_word_embeddings=True)),
    "gptj, another width": (gpt_j, (32, 2), (48, 3), {}),
    "mamba2, wide": (mamba, (32, 2, 8, 2), (64, 2, 16, 2), {}),
    "mamba2, deep": (mamba, (32, 2, 8, 2), (32, 4, 8, 2), {}),
    "mamba2, both": (mamba, (32, 2, 8, 1), (64, 3, 32, 1), {}),
    "dit, wide": (diffusion, (16, 2), (48, 2), {}),
    "dit, deep": (diffusion, (16, 2), (16, 5), {}),
    "dit, both": (diffusion, (16, 2), (32, 4), {}),
}


def models(case):
    make, small, large, options = case
    return randomised(make(*small, **options)), make(*large, **options)


@pytest.mark.parametrize("name", EXACT)
def test_growth_is_exact(name):
    source, target = models(EXACT[name])
    growth = grow(source, target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert not growth.dropped


@pytest.mark.parametrize("name", [name for name in EXACT if name.endswith("both")])
def test_plans_see_the_same_axes(name):
    """As a plan describes members, built and described under the meta device."""
    make, small, _, options = EXACT[name]
    with torch.device("meta"):
        planned = describe(make(*small, **options))
    assert planned == describe(make(*small, **options))


INEXACT = {
    "olmo2": (
        *(OLMO, (32, 2, 4, 2, 48), (48, 2, 4, 2, 48), {}),
        "'embed' grows from 32 to 48: exact at whole multiples only, as its layout says",
    ),
    "olmo2, heads": (
        *(OLMO, (32, 2, 4, 2, 48), (32, 2, 6, 2, 48), {}),
        "self_attn.q_norm.weight' normalises over 'kv_heads+group+head_dim', which grows",
    ),
    "mamba2": (
        *(mamba, (32, 2, 8, 2), (48, 3, 12, 2), {}),
        "mixer.norm.weight' normalises over 'groups+heads+head_dim', which grows",
    ),
    "dit": (
        *(diffusion, (16, 2), (24, 2), {}),
        "'embed' grows from 16 to 24: exact at whole multiples only, as its layout says",
    ),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_is_not_exact_is_said_with_its_reason(name):
    *case, reason = INEXACT[name]
    growth = grow(*models(case))
    assert not growth.function_preserving
    assert reason in growth.reason
    assert growth.error > 1e-4


CLONED = (
    *("olmo2, wide", "gemma2, wide", "gptj, wide", "mamba2, both"),
    "dit, both",
)


@pytest.mark.parametrize("name", CLONED)
def test_other_growers_read_the_same_notation(name):
    source, target = models(EXACT[name])
    clone = grow(source, target, "clone")
    assert clone.function_preserving, clone.reason
    assert clone.error < 1e-9
    corner = grow(source, target, "leading_block")
    assert not corner.dropped
    assert not corner.function_preserving


def gradients(model):
    """Return the gradients of a fixed random direction of what the layout probes, by name."""
    (output,) = find_layout(model).probe(model.eval(), torch.Generator().manual_seed(3)).values()
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(4))
    (output * direction.to(output)).sum().backward()
    return {name: param.grad for name, param in model.named_parameters()}


@pytest.mark.parametrize("name", ["gemma2, wide", "mamba2, wide", "dit, wide"])
@pytest.mark.filterwarnings("ignore:clone with noise=0")
def test_moments_grow_as_gradients_do(name):
    """Through sections, factors, batch norms, copied heads, and constants of the size."""
    grower = dict(type="clone", noise=0.0)
    source, target = models(EXACT[name])
    grow(source, target, grower)
    state = {f"exp_avg:{name}": gradient for name, gradient in gradients(source).items()}
    moments = grow_state(source, target, grower, state)
    for parameter, gradient in gradients(target).items():
        error = (moments[f"exp_avg:{parameter}"] - gradient).abs().max()
        assert error < 1e-4 * gradient.abs().max(), parameter  # norms of transformers are float32


def test_what_cannot_grow_is_named():
    with pytest.raises(GrowthError, match=r"dt_bias': the axis 'groups' changes from 2 to 4"):
        grow(mamba(32, 2, 8, 2), mamba(32, 2, 8, 4))


@pytest.mark.parametrize(
    "path",
    [path for path in OUTSIDE.glob("*.py") if path.stem != "dit_model"],
    ids=lambda p: p.stem,
)
def test_a_package_takes_few_lines(path):
    assert code_lines(path) <= 60


class TestOlmo2(LayoutContract):
    def pair(self):
        return models(EXACT["olmo2, both"])


class TestGemma2(LayoutContract):
    def pair(self):
        return models(EXACT["gemma2, both"])


class TestGptJ(LayoutContract):
    def pair(self):
        return models(EXACT["gptj, both"])


class TestMamba2(LayoutContract):
    def pair(self):
        return models(EXACT["mamba2, both"])


class TestDitLayout(LayoutContract):
    def pair(self):
        return models(EXACT["dit, both"])


class TestDiffusion(ParadigmContract):
    paradigm = dict(type="dit")
    model = dict(width=16, depth=1)
    larger = dict(width=32, depth=2)
