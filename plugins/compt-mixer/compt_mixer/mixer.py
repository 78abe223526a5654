"""The named axes of timm's MLP-Mixer and of its relatives gMixer and ResMLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import compt


class MixerLayout(compt.Layout):
    """The axes of MLP-Mixer, gMixer and ResMLP.

    A Mixer has an MLP over the positions, the same for every channel, and an MLP over the channels.
    gMixer has gated MLPs; ResMLP has one matrix over the positions, factors on both sub-layers, and
    no norms.

    What mixes positions writes the residual without touching the channels' axis. ``residual``, a
    stream of one unit folded into the positions that it writes, says so: new blocks begin with
    nothing to write there either, while the number of positions stays fixed. Every channel passes
    through the same weights there, pads included: the width keeps the function at whole multiples.
    """

    api_version = "1.2"
    patterns = {
        "stem.proj.weight": "patch_embed <- 3 patch patch",
        "stem.proj.bias": "patch_embed",
        "stem.norm.weight": "layer_norm_gain: patch_embed -> embed",
        "stem.norm.bias": "layer_norm_bias: patch_embed -> embed",
        "blocks.{block}.norm1.weight": "embed",
        "blocks.{block}.norm1.bias": "embed",
        "blocks.{block}.norm1.alpha": "scale: 1 1 embed",
        "blocks.{block}.norm1.beta": "1 1 embed",
        "blocks.{block}.mlp_tokens.fc1.weight": "(gates tokens_mlp) <- position",
        "blocks.{block}.mlp_tokens.fc1.bias": "(gates tokens_mlp)",
        "blocks.{block}.mlp_tokens.fc2.weight": "(position residual) <- tokens_mlp",
        "blocks.{block}.mlp_tokens.fc2.bias": "(position residual)",
        "blocks.{block}.linear_tokens.weight": "(position residual) <- position",
        "blocks.{block}.linear_tokens.bias": "(position residual)",
        "blocks.{block}.ls1": "scale: embed",
        "blocks.{block}.norm2.weight": "embed",
        "blocks.{block}.norm2.bias": "embed",
        "blocks.{block}.norm2.alpha": "scale: 1 1 embed",
        "blocks.{block}.norm2.beta": "1 1 embed",
        "blocks.{block}.mlp_channels.fc1.weight": "(gates mlp) <- embed",
        "blocks.{block}.mlp_channels.fc1.bias": "(gates mlp)",
        "blocks.{block}.mlp_channels.fc2.weight": "embed <- mlp * blocks.{block}.ls2",
        "blocks.{block}.mlp_channels.fc2.bias": "embed * blocks.{block}.ls2",
        "blocks.{block}.ls2": "scale: embed",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "norm.alpha": "scale: 1 1 embed",
        "norm.beta": "1 1 embed",
        "head.weight": "classes <- embed",
        "head.bias": "classes",
    }
    roles = {
        "patch_embed": "stream",
        "residual": "stream",
        "tokens_mlp": "hidden",
        "gates": "fixed",
    }
    whole = frozenset({"embed"})

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return one unit of ``residual``, and the number of ``gates``.

        It is 2 where an MLP's first layer makes values and gates, else 1.
        """
        mlp = module.blocks[0].mlp_channels
        return {"residual": 1, "gates": mlp.fc1.out_features // mlp.fc2.in_features}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the patches write the residual stream itself where no norm follows."""
        return {"patch_embed": "embed"} if isinstance(module.stem.norm, nn.Identity) else {}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the output for two random images, and the cosines of all pairs of tokens.

        The cosines compare models of different widths.
        """
        shape = (2, 3, *module.stem.img_size)
        images = torch.randn(*shape, generator=generator, dtype=torch.float64)
        tokens = module.forward_features(images.to(next(module.parameters())))
        units = nn.functional.normalize(tokens.flatten(0, 1), dim=-1)
        return {"output": module.forward_head(tokens), "similarity": units @ units.T}
