"""Small language models of transformers, in float64, and pairs of them to grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import pytest
import torch

from compt.testing.contracts import randomised

transformers = pytest.importorskip("transformers")


def llama(width=48, layers=2, heads=4, kv=2, mlp=64, *, name="Llama", head_dim=16, **options):
    """Make a model of the Llama family, whose member ``name`` is."""
    config = getattr(transformers, f"{name}Config")(
        vocab_size=options.pop("vocab", 61),
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=head_dim,
        max_position_embeddings=64,
        **options,
    )
    torch.manual_seed(width)
    return getattr(transformers, f"{name}ForCausalLM")(config).double()


def gpt2(width=48, layers=2, *, head_dim=16, positions=64, cls=None, **options):
    config = transformers.GPT2Config(
        vocab_size=61,
        n_embd=width,
        n_layer=layers,
        n_head=width // head_dim,
        n_positions=positions,
        bos_token_id=None,
        eos_token_id=None,
        **options,
    )
    torch.manual_seed(width)
    return (cls or transformers.GPT2LMHeadModel)(config).double()


def neox(width=48, layers=2, mlp=64, **options):
    config = transformers.GPTNeoXConfig(
        vocab_size=61,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        **options,
    )
    torch.manual_seed(width)
    return transformers.GPTNeoXForCausalLM(config).double()


BIASES = dict(attention_bias=True, mlp_bias=True)
SERIAL = dict(use_parallel_residual=False)
PAIRS = {
    "llama": (lambda **o: llama(48, 2, 4, 2, **o), lambda **o: llama(80, 5, 8, 2, 160, **o)),
    "llama with biases": (
        lambda **o: llama(64, 2, 4, 2, **BIASES, **o),
        lambda **o: llama(112, 3, 14, 7, 80, **BIASES, **o),
    ),
    "mistral": (
        lambda **o: llama(48, 2, 4, 2, name="Mistral", sliding_window=4, **o),
        lambda **o: llama(80, 3, 12, 4, 96, name="Mistral", sliding_window=4, **o),
    ),
    "qwen2": (
        lambda **o: llama(name="Qwen2", **o),
        lambda **o: llama(80, 3, 6, 2, 96, name="Qwen2", **o),
    ),
    "qwen3": (
        lambda **o: llama(name="Qwen3", **o),
        lambda **o: llama(144, 3, 6, 3, 96, name="Qwen3", **o),
    ),
    "gpt2": (lambda **o: gpt2(48, 2, **o), lambda **o: gpt2(80, 5, n_inner=400, **o)),
    "gpt_neox": (lambda **o: neox(48, 2, **o), lambda **o: neox(80, 5, 160, **o)),
    "gpt_neox, serial": (
        lambda **o: neox(64, 2, **SERIAL, **o),
        lambda **o: neox(112, 3, 160, **SERIAL, **o),
    ),
}


def pair(name, tied=False):
    return tuple(make(tie_word_embeddings=tied) for make in PAIRS[name])


def is_tied(model):
    return model.lm_head.weight is model.get_input_embeddings().weight


def causal_lm(name, **config):
    """Make a small model of transformers with fresh weights, in float64."""
    ids = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config = dict(vocab_size=61, **ids) | config
    kind = "Gemma3Text" if name == "Gemma3" else name
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**config)
    ).double()


def grouped(name, width, depth, heads, kv, mlp, **options):
    sizes = dict(hidden_size=width, num_hidden_layers=depth, intermediate_size=mlp, head_dim=8)
    heads = dict(num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=64)
    return causal_lm(name, **sizes | heads | options)


def gemma(name, *sizes, scalar=16, **options):
    """Make a Gemma whose queries are divided by the root of a constant, and windows are short."""
    return grouped(name, *sizes, query_pre_attn_scalar=scalar, sliding_window=4, **options)


def olmo_3(width, depth, *sizes, **options):
    kinds = (["sliding_attention", "full_attention"] * depth)[:depth]
    options |= dict(sliding_window=4, layer_types=kinds)
    return grouped("Olmo3", width, depth, *sizes, **options)


def gpt_j(width, depth, mlp=None, **options):
    sizes = dict(n_embd=width, n_layer=depth, n_head=width // 8, n_inner=mlp)
    return causal_lm("GPTJ", rotary_dim=4, n_positions=64, **sizes, **options)


def falcon(width, depth, kv=None, mlp=None, **options):
    """Make a Falcon of the new decoder architecture, or with ``kv`` None of an older one."""
    sizes = dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 8)
    options |= dict(ffn_hidden_size=mlp or 4 * width)
    if kv:
        options |= dict(new_decoder_architecture=True, num_kv_heads=kv)
    return causal_lm("Falcon", **sizes, **options)


def mamba_2(width, depth, heads, groups):
    sizes = dict(hidden_size=width, num_hidden_layers=depth, num_heads=heads, n_groups=groups)
    expand = heads * 8 // width
    return causal_lm("Mamba2", head_dim=8, expand=expand, state_size=4, chunk_size=8, **sizes)


def experts(name, width, depth, heads, kv, mlp, num=4, chosen=2, **options):
    """Make a decoder with ``num`` experts, of which a token chooses some."""
    if name == "Qwen3Moe":
        options = dict(norm_topk_prob=True) | options
        options |= dict(num_experts=num, moe_intermediate_size=mlp)
    else:
        options |= dict(num_local_experts=num)
    if name == "GptOss":
        options |= dict(sliding_window=4, rope_parameters=dict(rope_type="default", rope_theta=1e4))
    options = dict(num_experts_per_tok=chosen, experts_implementation="eager") | options
    return grouped(name, width, depth, heads, kv, mlp, **options)


class Case(NamedTuple):
    """One architecture in four sizes, which are arguments of ``make``."""

    make: Callable[..., torch.nn.Module]
    source: tuple
    whole: tuple
    """Wider by whole multiples."""
    other: tuple
    """Wider by anything else."""
    deep: tuple
    """As wide, and deeper."""
    reasons: Mapping[str, str] = {}
    """By hop, what growth says of one that is not exact."""

    def pair(self, hop, **options):
        """Make the source with random weights, and the target of a hop."""
        source, target = self.source, getattr(self, hop)
        return randomised(self.make(*source, **options)), self.make(*target, **options)


HOPS = ("whole", "other", "deep")
"""A whole multiple of every width, another width, and more blocks."""

GROUPED = (32, 2, 4, 2, 48), (64, 2, 8, 4, 96), (48, 3, 6, 2, 100), (32, 5, 4, 2, 48)
WINDOWED = (32, 3, 4, 2, 48), (64, 3, 8, 4, 96), (48, 4, 6, 2, 100), (32, 6, 4, 2, 48)
GPT = (32, 2), (64, 2), (40, 3), (32, 5)
NEW_FALCON = (32, 2, 2), (64, 2, 4), (48, 3, 2, 200), (32, 5, 2)
UNGROUPED_OLMO = (32, 2, 4, 2, 48), (64, 2, 8, 4, 96), (48, 2, 6, 2, 96), (32, 5, 4, 2, 48)
MAMBAS = (32, 2, 8, 2), (64, 2, 16, 2), (48, 3, 12, 2), (32, 4, 8, 2)
STREAM = "'embed' grows from 32 to 48: exact at whole multiples only, as its layout says"
GATED_NORM = "mixer.norm.weight' normalises over 'groups+heads+head_dim', which grows"
CASES = {
    "llama": Case(partial(grouped, "Llama"), *GROUPED),
    "mistral": Case(partial(grouped, "Mistral", sliding_window=4), *GROUPED),
    "qwen2": Case(partial(grouped, "Qwen2"), *GROUPED),
    "qwen3": Case(partial(grouped, "Qwen3"), *GROUPED),
    "smollm3": Case(partial(grouped, "SmolLM3", no_rope_layer_interval=2), *GROUPED),
    "olmo2": Case(partial(grouped, "Olmo2"), *UNGROUPED_OLMO, {"other": STREAM}),
    "olmo3": Case(olmo_3, *UNGROUPED_OLMO, {"other": STREAM}),
    "phi3": Case(partial(grouped, "Phi3"), *GROUPED),
    "starcoder2": Case(partial(grouped, "Starcoder2"), *GROUPED),
    "gemma2": Case(partial(gemma, "Gemma2"), *WINDOWED),
    "gemma3": Case(partial(gemma, "Gemma3", layer_types=None, sliding_window_pattern=2), *WINDOWED),
    "gpt2": Case(partial(gpt2, head_dim=8), *GPT),
    "gpt_neox": Case(
        lambda width, depth, **o: neox(16 * (width // 8), depth, 4 * width, **o), *GPT
    ),
    "gpt_j": Case(gpt_j, *GPT),
    "falcon": Case(falcon, *NEW_FALCON),
    "falcon, one key": Case(partial(falcon, parallel_attn=False, bias=True), *GPT),
    "falcon, a key a head": Case(partial(falcon, multi_query=False), *GPT),
    "mixtral": Case(partial(experts, "Mixtral"), *GROUPED),
    "qwen3_moe": Case(partial(experts, "Qwen3Moe"), *GROUPED),
    "gpt_oss": Case(partial(experts, "GptOss"), *WINDOWED),
    "mamba2": Case(mamba_2, *MAMBAS, {"other": GATED_NORM}),
}
"""Every family of decoders, for tests and tables."""
