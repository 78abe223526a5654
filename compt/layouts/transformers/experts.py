"""Layouts of decoders whose tokens choose a few of many MLPs, the experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compt.interfaces import Outputs
from compt.layouts.transformers._decoder import ATTENTION, PRE_NORMS, DecoderLayout, decoder
from compt.layouts.transformers.llama import LlamaLayout

LAYER = "model.layers.{block}"


class ExpertsLayout(DecoderLayout):
    """A decoder in which a router chooses experts for each token."""

    roles = {**DecoderLayout.roles, "experts": "fixed", "expert_mlp": "hidden"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the heads, and how many experts a token chooses."""
        return {**super().sizes(module), "chosen_experts": module.config.num_experts_per_tok}

    def probe(
        self, module: Any, generator: torch.Generator, common: Mapping[str, int] | None = None
    ) -> Outputs:
        """Return the logits of random tokens, of experts that run one after the other."""
        # The kernels for all of them at once know no float64.
        usual = module.config._experts_implementation
        module.set_experts_implementation("eager")
        try:
            return super().probe(module, generator, common)
        finally:
            module.set_experts_implementation(usual)


class MixtralLayout(ExpertsLayout):
    """The axes of Mixtral and Qwen3-MoE, whose other parts are Llama's."""

    patterns = {
        **decoder(
            {
                "mlp.gate.*": "experts <- embed",
                "mlp.experts.gate_up_proj": "experts (2 expert_mlp) <- embed",
                "mlp.experts.down_proj": "experts embed <- expert_mlp",
            }
        ),
        **LlamaLayout.patterns,
    }
    dense = {
        f"{LAYER}.mlp.gate.*": (),
        f"{LAYER}.mlp.experts.gate_up_proj": (
            f"{LAYER}.mlp.gate_proj.weight",
            f"{LAYER}.mlp.up_proj.weight",
        ),
        f"{LAYER}.mlp.experts.down_proj": (f"{LAYER}.mlp.down_proj.weight",),
    }


class GptOssLayout(ExpertsLayout):
    """The axes of GPT-OSS, in which a sink for each head takes part of its attention."""

    patterns = decoder(
        {
            **PRE_NORMS,
            **ATTENTION,
            "self_attn.sinks": "(kv_heads group)",
            "mlp.router.*": "experts <- embed",
            "mlp.experts.gate_up_proj": "experts embed -> (expert_mlp 2)",
            "mlp.experts.gate_up_proj_bias": "-> experts (expert_mlp 2)",
            "mlp.experts.down_proj": "experts expert_mlp -> embed",
            "mlp.experts.down_proj_bias": "-> experts embed",
        }
    )
