"""The named axes of transformers' Mamba."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import compt

TOKENS = 12
"""The length of the probe's sequences, short since the scan is sequential on a CPU."""


class MambaLayout(compt.Layout):
    """The axes of Mamba.

    It has RMSNorm, a gated branch, a short convolution and a selective scan, every inner channel by
    itself. Inner channels may grow, and the width; ``state_size`` and ``time_step_rank`` may
    not, so give the latter in the config (transformers derives it from the width). Exact at any
    width and depth.
    """

    api_version = "1.2"
    patterns = {
        "backbone.embeddings.weight": "vocab -> embed",
        "backbone.layers.{block}.norm.weight": "rms_norm_gain: embed",
        "backbone.layers.{block}.mixer.in_proj.weight": "(2 inner) <- embed",
        "backbone.layers.{block}.mixer.in_proj.bias": "(2 inner)",
        "backbone.layers.{block}.mixer.conv1d.weight": "scale: inner 1 kernel",
        "backbone.layers.{block}.mixer.conv1d.bias": "inner",
        "backbone.layers.{block}.mixer.x_proj.weight": "selection <- inner",
        "backbone.layers.{block}.mixer.dt_proj.weight": "inner <- time_step",
        "backbone.layers.{block}.mixer.dt_proj.bias": "inner",
        "backbone.layers.{block}.mixer.A_log": "scale: inner state",
        "backbone.layers.{block}.mixer.D": "scale: inner",
        "backbone.layers.{block}.mixer.out_proj.weight": "embed <- inner",
        "backbone.layers.{block}.mixer.out_proj.bias": "embed",
        "backbone.norm_f.weight": "rms_norm_gain: embed @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }
    roles = {
        "inner": "hidden",
        "kernel": "fixed",
        "selection": "fixed",
        "time_step": "fixed",
        "state": "fixed",
    }

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the logits of two random token sequences, in the module's own precision."""
        tokens = torch.randint(module.config.vocab_size, (2, TOKENS), generator=generator)
        tokens = tokens.to(next(module.parameters()).device)
        with WholePrecision():
            return {"logits": module(tokens, use_cache=False).logits}


class WholePrecision(TorchFunctionMode):
    """Leave float64 tensors as they are where a model would round them to float32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Pass everything on but ``tensor.float()`` and ``tensor.to(torch.float32)``."""
        kwargs = kwargs or {}
        rounds = function is torch.Tensor.float or (
            function is torch.Tensor.to and torch.float32 in (*args[1:], *kwargs.values())
        )
        if rounds and args[0].dtype == torch.float64:
            return args[0]
        return function(*args, **kwargs)
