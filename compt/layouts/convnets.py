"""Layouts of convolutional networks, timm's ResNet and ConvNeXt and open_clip's ResNet.

Every stage has a residual stream of its own, ``embed_1``, ... and, last, ``embed``, which heads
read. What leads from one stage to the next is in its first block, in ResNets, or before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, tokens_on_grid

IMAGE_SIZE = 32
"""The edge of the probe's images, as these networks take any."""

FIRST, ANY = "layer{stage}.{first}", "layer{stage}.{block}"
BLOCK = "stages.{stage}.blocks.{block}"
IN, OUT, MID = "from_{stage}", "embed_{stage}", "(groups_{stage} mid_{stage})"

RESNET = {
    f"{FIRST}.conv1.weight": f"{MID} <- {IN} kernel kernel",
    f"{ANY}.conv1.weight": f"{MID} <- {OUT} kernel kernel",
    f"{ANY}.bn1.*": MID,
}
"""Of what all blocks of ResNets have in common."""

BASIC = {
    f"{ANY}.conv2.weight": f"{OUT} <- {MID} 3 3 * {ANY}.bn2.weight",
    f"{ANY}.bn2.*": OUT,
}
BOTTLENECK = {
    f"{ANY}.conv2.weight": f"{MID} <- mid_{{stage}} 3 3",
    f"{ANY}.bn2.*": MID,
    f"{ANY}.conv3.weight": f"{OUT} <- {MID} 1 1 * {ANY}.bn3.weight",
    f"{ANY}.bn3.*": OUT,
}


class ResNetLayout(Layout):
    """The axes of timm's ResNet, exact at any width and depth.

    Its batch norms span no units, so that their running statistics grow with what they are of.
    """

    patterns = {
        "conv1.weight": "stem <- 3 7 7",
        "conv1.0.weight": "deep_1 <- 3 3 3",
        "conv1.1.*": "deep_1",
        "conv1.3.weight": "deep_2 <- deep_1 3 3",
        "conv1.4.*": "deep_2",
        "conv1.6.weight": "stem <- deep_2 3 3",
        "bn1.*": "stem",
        **RESNET,
        "fc.*": "classes <- embed",
    }
    roles = {
        "stem": "stream",
        "deep": "hidden",
        "groups": "hidden",
        "mid": "hidden",
        "kernel": "fixed",
    }
    num_stages = 4

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns of its kind of block, and of where it takes averages before."""
        own = {**self.patterns, **(BOTTLENECK if hasattr(module.layer1[0], "conv3") else BASIC)}
        averaged = "2" in module.layer2[0].downsample._modules
        own[f"{FIRST}.downsample.{int(averaged)}.weight"] = f"{OUT} <- {IN} 1 1"
        own[f"{FIRST}.downsample.{1 + averaged}.*"] = OUT
        return own

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of groups of each stage's convolutions."""
        stages = range(1, self.num_stages + 1)
        return {f"groups_{i}": getattr(module, f"layer{i}")[0].conv2.groups for i in stages}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which stream each stage reads, and that the first may go on with the stem's."""
        stem = "embed_1" if module.layer1[0].downsample is None else "stem"
        into = {f"from_{i}": f"embed_{i - 1}" for i in range(2, self.num_stages + 1)}
        return into | {"stem": stem, "from_1": stem, f"embed_{self.num_stages}": "embed"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the output for two random images."""
        return {"output": module(images(module, IMAGE_SIZE, generator))}


class ModifiedResNetLayout(ResNetLayout):
    """The axes of open_clip's ResNet, whose features an attention makes of the last map.

    Exact at any width and depth, as no norm but batch norms reads a stream.
    """

    patterns = {
        "conv1.weight": "deep_1 <- 3 3 3",
        "bn1.*": "deep_1",
        "conv2.weight": "deep_2 <- deep_1 3 3",
        "bn2.*": "deep_2",
        "conv3.weight": "stem <- deep_2 3 3",
        "bn3.*": "stem",
        **RESNET,
        "attnpool.q_proj.*": "(heads head_dim) <- embed",
        "attnpool.k_proj.*": "(heads head_dim) <- embed",
        "attnpool.v_proj.*": "(heads head_dim) <- embed",
        "attnpool.c_proj.*": "feature <- (heads head_dim)",
    }

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns with the places of the attention's tokens, the mean before all."""
        positions = module.attnpool.positional_embedding
        places = tokens_on_grid(len(positions), self._grid(module))
        return {
            **super().patterns_of(module),
            "attnpool.positional_embedding": f"{places} -> embed",
        }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, and of places on the last map."""
        grid = dict(zip(("height", "width"), self._grid(module), strict=True))
        return {**super().sizes(module), **grid, "heads": module.attnpool.num_heads}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the features of two random images."""
        return {"features": module(images(module, module.image_size, generator))}

    def _grid(self, module: Any) -> tuple[int, int]:
        size = module.image_size
        rows, columns = (size, size) if isinstance(size, int) else size
        return rows // 32, columns // 32


class ConvNeXtLayout(Layout):
    """The axes of timm's ConvNeXt, V2 too.

    Exact at whole multiples, as a LayerNorm spans what the depthwise convolution makes.
    """

    patterns = {
        "stem.0.*": "stem <- 3 patch patch",
        "stem.1.*": "stem -> embed_0",
        "stages.{stage}.downsample.0.*": IN,
        "stages.{stage}.downsample.1.*": f"{OUT} <- {IN} 2 2",
        f"{BLOCK}.conv_dw.*": "scale: mid_{stage} 1 kernel kernel",
        f"{BLOCK}.norm.*": "mid_{stage}",
        f"{BLOCK}.mlp.fc1.*": "mlp_{stage} <- mid_{stage}",
        f"{BLOCK}.mlp.grn.weight": "rms_norm_gain: mlp_{stage}",
        f"{BLOCK}.mlp.grn.bias": "rms_norm_bias: mlp_{stage}",
        f"{BLOCK}.mlp.fc2.*": f"{OUT} <- mlp_{{stage}} * {BLOCK}.gamma",
        f"{BLOCK}.gamma": f"scale: {OUT}",
        "norm_pre.*": "embed",
        "head.norm.*": "embed",
        "head.fc.*": "classes <- embed",
    }
    roles = {"stem": "stream", "mid": "hidden", "kernel": "fixed"}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which stream each stage reads."""
        last = len(module.stages) - 1
        into = {f"from_{i}": f"embed_{i - 1}" for i in range(1, last + 1)}
        return into | {f"embed_{last}": "embed"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the output for two random images."""
        return {"output": module(images(module, IMAGE_SIZE, generator))}
