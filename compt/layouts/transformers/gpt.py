"""Layouts of the GPT families and of Falcon, most of whose queries have keys of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.layouts.transformers._decoder import DecoderLayout


class GptLayout(DecoderLayout):
    """A decoder whose heads are all alike."""

    roles = {}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which a fused projection does not tell."""
        return {"heads": module.config.num_attention_heads}


class Gpt2Layout(GptLayout):
    """The axes of GPT-2, which has LayerNorm, learned positions, and weights [in, out]."""

    patterns = {
        "transformer.wte.weight": "vocab -> embed",
        "transformer.wpe.weight": "position -> embed",
        "transformer.h.{block}.ln_1.*": "embed",
        "transformer.h.{block}.attn.c_attn.*": "embed -> (3 heads head_dim)",
        "transformer.h.{block}.attn.c_proj.*": "(heads head_dim) -> embed",
        "transformer.h.{block}.ln_2.*": "embed",
        "transformer.h.{block}.mlp.c_fc.*": "embed -> mlp",
        "transformer.h.{block}.mlp.c_proj.*": "mlp -> embed",
        "transformer.ln_f.weight": "embed @ lm_head.weight",
        "transformer.ln_f.bias": "embed @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }

    def score_scales(self, module: Any) -> Mapping[str, float]:
        """Return the scale of scores, in which a block's number may be left out."""
        config = module.config
        head_dim = config.hidden_size // config.num_attention_heads
        scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
        return {"transformer.h.{block}.attn.c_attn.*": scale}


class GptNeoxLayout(GptLayout):
    """The axes of GPT-NeoX and Pythia.

    They have LayerNorm, rotary positions, and q, k and v fused head by head.
    """

    roles = {"head_dim": "rotary"}
    patterns = {
        "gpt_neox.embed_in.weight": "vocab -> embed",
        "gpt_neox.layers.{block}.input_layernorm.*": "embed",
        "gpt_neox.layers.{block}.post_attention_layernorm.*": "embed",
        "gpt_neox.layers.{block}.attention.query_key_value.*": "(heads 3 head_dim) <- embed",
        "gpt_neox.layers.{block}.attention.dense.*": "embed <- (heads head_dim)",
        "gpt_neox.layers.{block}.mlp.dense_h_to_4h.*": "mlp <- embed",
        "gpt_neox.layers.{block}.mlp.dense_4h_to_h.*": "embed <- mlp",
        "gpt_neox.final_layer_norm.*": "embed @ lm_head.weight embed_out.weight",
        "lm_head.weight": "vocab <- embed",
        # the head's name in the first releases of transformers 5
        "embed_out.weight": "vocab <- embed",
    }


class GptJLayout(GptLayout):
    """The axes of GPT-J.

    Attention and MLP read one norm side by side, and positions rotate part of each head.
    """

    roles = {"head_dim": "rotary"}
    patterns = {
        "transformer.wte.weight": "vocab -> embed",
        "transformer.h.{block}.ln_1.*": "embed",
        "transformer.h.{block}.attn.q_proj.*": "(heads head_dim) <- embed",
        "transformer.h.{block}.attn.k_proj.*": "(heads head_dim) <- embed",
        "transformer.h.{block}.attn.v_proj.*": "(heads head_dim) <- embed",
        "transformer.h.{block}.attn.out_proj.*": "embed <- (heads head_dim)",
        "transformer.h.{block}.mlp.fc_in.*": "mlp <- embed",
        "transformer.h.{block}.mlp.fc_out.*": "embed <- mlp",
        "transformer.ln_f.*": "embed @ lm_head.weight",
        "lm_head.*": "vocab <- embed",
    }


class FalconLayout(GptLayout):
    """The axes of Falcon in its three designs, with rotary positions or ALiBi.

    One key/value head for all queries (7B), one for each group (the new decoder architecture), or
    one for each (RW). ALiBi gives each head a slope by the number of heads, which then must stay.
    """

    roles = {"group": "hidden"}

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns of the module's design."""
        config = module.config
        heads = "alibi_heads" if config.alibi else "heads"
        if config.new_decoder_architecture:
            heads = f"kv_heads {'alibi_heads' if config.alibi else 'group'}"
            fused = f"({heads.replace(' ', ' / ')} head_dim | head_dim | head_dim)"
        elif config.multi_query:
            fused = f"({heads} head_dim | head_dim | head_dim)"
        else:
            fused = f"({heads} 3 head_dim)"
        block = "transformer.h.{block}"
        norms = ("input_layernorm", "post_attention_layernorm", "ln_attn", "ln_mlp")
        return {
            "transformer.word_embeddings.weight": "vocab -> embed",
            **{f"{block}.{norm}.*": "embed" for norm in norms},
            f"{block}.self_attention.query_key_value.*": f"{fused} <- embed",
            f"{block}.self_attention.dense.*": f"embed <- ({heads} head_dim)",
            f"{block}.mlp.dense_h_to_4h.*": "mlp <- embed",
            f"{block}.mlp.dense_4h_to_h.*": "embed <- mlp",
            "transformer.ln_f.*": "embed @ lm_head.weight",
            "lm_head.*": "vocab <- embed",
        }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the size of heads, and the number of key/value heads."""
        attention = module.transformer.h[0].self_attention
        return {"kv_heads": attention.num_kv_heads, "head_dim": attention.head_dim}
