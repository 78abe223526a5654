"""Small language models of transformers, in float64, and pairs of them to grow."""

from __future__ import annotations

import pytest
import torch

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
