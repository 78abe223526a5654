"""Named axes of timm's MLP-Mixer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

import compt


class MixerLayout(compt.Layout):
    """MLP-Mixer: an MLP over the positions, the same for every channel, and an MLP over the channels.

    The positions are a stream as the channels are: the token mixer writes the residual through them, so that new
    blocks begin with nothing to write there either. Every channel passes through the token mixer's one set of
    weights, pads included: the width keeps the function at whole multiples.
    """

    api_version = "1.0"
    patterns = {
        "stem.proj.weight": "patch_embed <- 3 patch patch",
        "stem.proj.bias": "patch_embed",
        "stem.norm.weight": "layer_norm_gain: patch_embed -> embed",
        "stem.norm.bias": "layer_norm_bias: patch_embed -> embed",
        "blocks.{block}.norm1.weight": "embed",
        "blocks.{block}.norm1.bias": "embed",
        "blocks.{block}.mlp_tokens.fc1.weight": "tokens_mlp <- position",
        "blocks.{block}.mlp_tokens.fc1.bias": "tokens_mlp",
        "blocks.{block}.mlp_tokens.fc2.weight": "position <- tokens_mlp",
        "blocks.{block}.mlp_tokens.fc2.bias": "position",
        "blocks.{block}.norm2.weight": "embed",
        "blocks.{block}.norm2.bias": "embed",
        "blocks.{block}.mlp_channels.fc1.weight": "mlp <- embed",
        "blocks.{block}.mlp_channels.fc1.bias": "mlp",
        "blocks.{block}.mlp_channels.fc2.weight": "embed <- mlp",
        "blocks.{block}.mlp_channels.fc2.bias": "embed",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "head.weight": "classes <- embed",
        "head.bias": "classes",
    }
    roles = {"patch_embed": "stream", "position": "stream", "tokens_mlp": "hidden"}
    whole = frozenset({"embed"})

    def same(self, module: nn.Module) -> Mapping[str, str]:
        """Without a norm after the patches these write the residual stream itself."""
        return {"patch_embed": "embed"} if isinstance(module.stem.norm, nn.Identity) else {}

    def probe(self, module: nn.Module, generator: torch.Generator) -> compt.Outputs:
        """Output for two random images, and the cosines of all pairs of tokens, whatever their width."""
        weight = next(module.parameters())
        images = torch.randn(2, 3, *module.stem.img_size, generator=generator, dtype=torch.float64).to(weight)
        tokens = module.forward_features(images)
        units = nn.functional.normalize(tokens.flatten(0, 1), dim=-1)
        return {"output": module.forward_head(tokens), "similarity": units @ units.T}
