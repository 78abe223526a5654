"""Layouts of transformers' decoder-only language models.

They are of the Llama family, GPT-2 and GPT-NeoX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from compt.interfaces import Layout, Outputs

TOKENS = 24
"""The length of the probe's sequences, where the context allows it."""


class LlamaLayout(Layout):
    """The axes of Llama, Mistral, Qwen2 and Qwen3.

    They have RMSNorm, rotary positions, grouped queries and gated MLPs. Query head h reads
    key/value head ``h // group``: more queries grow inside each group, and a new key/value head
    brings a whole group of queries.
    """

    patterns = {
        "model.embed_tokens.weight": "vocab -> embed",
        "model.layers.{block}.input_layernorm.weight": "rms_norm_gain: embed",
        "model.layers.{block}.self_attn.q_proj.weight": "(kv_heads group head_dim) <- embed",
        "model.layers.{block}.self_attn.q_proj.bias": "(kv_heads group head_dim)",
        "model.layers.{block}.self_attn.k_proj.weight": "(kv_heads head_dim) <- embed",
        "model.layers.{block}.self_attn.k_proj.bias": "(kv_heads head_dim)",
        "model.layers.{block}.self_attn.v_proj.weight": "(kv_heads head_dim) <- embed",
        "model.layers.{block}.self_attn.v_proj.bias": "(kv_heads head_dim)",
        "model.layers.{block}.self_attn.q_norm.weight": "rms_norm_gain: head_dim",
        "model.layers.{block}.self_attn.k_norm.weight": "rms_norm_gain: head_dim",
        "model.layers.{block}.self_attn.o_proj.weight": "embed <- (kv_heads group head_dim)",
        "model.layers.{block}.self_attn.o_proj.bias": "embed",
        "model.layers.{block}.post_attention_layernorm.weight": "rms_norm_gain: embed",
        "model.layers.{block}.mlp.gate_proj.weight": "mlp <- embed",
        "model.layers.{block}.mlp.gate_proj.bias": "mlp",
        "model.layers.{block}.mlp.up_proj.weight": "mlp <- embed",
        "model.layers.{block}.mlp.up_proj.bias": "mlp",
        "model.layers.{block}.mlp.down_proj.weight": "embed <- mlp",
        "model.layers.{block}.mlp.down_proj.bias": "embed",
        "model.norm.weight": "rms_norm_gain: embed @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }
    roles = {"group": "hidden"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of query heads, and of the key/value heads that they share."""
        config = module.config
        return {"heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the logits of two random token sequences."""
        return _probe(module, generator)


class Gpt2Layout(Layout):
    """The axes of GPT-2, which has LayerNorm, learned positions, and weights [in, out]."""

    patterns = {
        "transformer.wte.weight": "vocab -> embed",
        "transformer.wpe.weight": "position -> embed",
        "transformer.h.{block}.ln_1.weight": "embed",
        "transformer.h.{block}.ln_1.bias": "embed",
        "transformer.h.{block}.attn.c_attn.weight": "embed -> (3 heads head_dim)",
        "transformer.h.{block}.attn.c_attn.bias": "(3 heads head_dim)",
        "transformer.h.{block}.attn.c_proj.weight": "(heads head_dim) -> embed",
        "transformer.h.{block}.attn.c_proj.bias": "embed",
        "transformer.h.{block}.ln_2.weight": "embed",
        "transformer.h.{block}.ln_2.bias": "embed",
        "transformer.h.{block}.mlp.c_fc.weight": "embed -> mlp",
        "transformer.h.{block}.mlp.c_fc.bias": "mlp",
        "transformer.h.{block}.mlp.c_proj.weight": "mlp -> embed",
        "transformer.h.{block}.mlp.c_proj.bias": "embed",
        "transformer.ln_f.weight": "embed @ lm_head.weight",
        "transformer.ln_f.bias": "embed @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the fused projection does not tell."""
        return {"heads": module.config.num_attention_heads}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the logits of two random token sequences."""
        return _probe(module, generator)


class GptNeoxLayout(Layout):
    """The axes of GPT-NeoX and Pythia.

    They have LayerNorm, rotary positions, and q, k and v fused head by head.
    """

    patterns = {
        "gpt_neox.embed_in.weight": "vocab -> embed",
        "gpt_neox.layers.{block}.input_layernorm.weight": "embed",
        "gpt_neox.layers.{block}.input_layernorm.bias": "embed",
        "gpt_neox.layers.{block}.post_attention_layernorm.weight": "embed",
        "gpt_neox.layers.{block}.post_attention_layernorm.bias": "embed",
        "gpt_neox.layers.{block}.attention.query_key_value.weight": "(heads 3 head_dim) <- embed",
        "gpt_neox.layers.{block}.attention.query_key_value.bias": "(heads 3 head_dim)",
        "gpt_neox.layers.{block}.attention.dense.weight": "embed <- (heads head_dim)",
        "gpt_neox.layers.{block}.attention.dense.bias": "embed",
        "gpt_neox.layers.{block}.mlp.dense_h_to_4h.weight": "mlp <- embed",
        "gpt_neox.layers.{block}.mlp.dense_h_to_4h.bias": "mlp",
        "gpt_neox.layers.{block}.mlp.dense_4h_to_h.weight": "embed <- mlp",
        "gpt_neox.layers.{block}.mlp.dense_4h_to_h.bias": "embed",
        "gpt_neox.final_layer_norm.weight": "embed @ lm_head.weight embed_out.weight",
        "gpt_neox.final_layer_norm.bias": "embed @ lm_head.weight embed_out.weight",
        "lm_head.weight": "vocab <- embed",
        # the head's name in the first releases of transformers 5
        "embed_out.weight": "vocab <- embed",
    }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the fused projection does not tell."""
        return {"heads": module.config.num_attention_heads}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the logits of two random token sequences."""
        return _probe(module, generator)


def _probe(module: Any, generator: torch.Generator) -> Outputs:
    """Return logits [2, TOKENS, vocab] of random tokens, or as many as the context holds.

    The logits are those of the sequences' ends.
    """
    config = module.config
    length = TOKENS
    # where only some layers have a sliding window, within it the two kinds would look alike
    if len(set(getattr(config, "layer_types", None) or ())) > 1:
        length += getattr(config, "sliding_window", None) or 0
    tokens = torch.randint(config.vocab_size, (2, length), generator=generator)
    tokens = tokens[:, : config.max_position_embeddings]
    device = next(module.parameters()).device
    with _whole_precision(module):
        return {"logits": module(tokens.to(device), use_cache=False, logits_to_keep=TOKENS).logits}


@contextmanager
def _whole_precision(module: Any) -> Iterator[None]:
    """Let RMS norms, which transformers rounds to float32, compute in the module's own float64."""

    def norm(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if output.dtype != torch.float64:
            return output
        size = args[0].square().mean(-1, keepdim=True)
        normed: Tensor = layer.weight * args[0] * torch.rsqrt(size + layer.variance_epsilon)
        return normed

    norms = [layer for layer in module.modules() if hasattr(layer, "variance_epsilon")]
    hooks = [layer.register_forward_hook(norm) for layer in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
