"""Layouts of Swin transformers, timm's and mmpretrain's.

Every stage has a residual stream of its own. The streams are ``embed_0``, ``embed_1``, ... and,
last, ``embed``, which heads and projections read. Patch merging reads four tokens of one stream at
once and writes the next stream. Every second block of a stage shifts its windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity


def _blocks(block: str, attention: str, first: str, second: str) -> dict[str, str]:
    """Return the patterns of a stage's blocks, by the names of a block and of what it holds.

    Offsets are how far two tokens of a window may be apart, by rows and columns.
    """
    heads, offsets = "heads_{stage} head_dim", "(height_{stage} width_{stage})"
    return {
        f"{block}.norm1.*": "embed_{stage}",
        f"{block}.{attention}.relative_position_bias_table": f"{offsets} -> heads_{{stage}}",
        f"{block}.{attention}.qkv.*": f"(3 {heads}) <- embed_{{stage}}",
        f"{block}.{attention}.proj.*": f"embed_{{stage}} <- ({heads})",
        f"{block}.norm2.*": "embed_{stage}",
        f"{block}.{first}.*": "mlp_{stage} <- embed_{stage}",
        f"{block}.{second}.*": "embed_{stage} <- mlp_{stage}",
    }


class SwinLayout(Layout):
    """What both Swins have in common."""

    roles = {"patch_embed": "stream"}
    stages: str
    """The module's list of stages."""
    attention = "attn"
    """Where the attention of a block is."""

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return each stage's number of heads, which the fused qkv does not tell, and offsets."""
        sizes: dict[str, int] = {}
        for i, stage in enumerate(getattr(module, self.stages)):
            attention = stage.blocks[0].get_submodule(self.attention)
            window = attention.window_size
            rows, columns = (window, window) if isinstance(window, int) else window
            sizes |= {f"heads_{i}": attention.num_heads}
            sizes |= {f"height_{i}": 2 * rows - 1, f"width_{i}": 2 * columns - 1}
        return sizes

    def periods(self, module: Any) -> Mapping[str, int]:
        """Return that every second block of a stage shifts its windows."""
        return {f"{self.stages}.{i}.blocks": 2 for i in range(len(getattr(module, self.stages)))}


class TimmSwinLayout(SwinLayout):
    """The axes of timm's Swin.

    A stage begins with its patch merging, so that ``merged_{stage}`` is the stream of the stage
    before.
    """

    patterns = {
        "patch_embed.proj.*": "patch_embed <- 3 patch patch",
        "patch_embed.norm.*": "patch_embed -> embed_0",
        "layers.{stage}.downsample.norm.*": "(4 merged_{stage})",
        "layers.{stage}.downsample.reduction.*": "embed_{stage} <- (4 merged_{stage})",
        **_blocks("layers.{stage}.blocks.{block}", "attn", "mlp.fc1", "mlp.fc2"),
        "norm.*": "embed",
        "head.fc.*": "classes <- embed",
    }
    stages = "layers"

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which stream each stage, each patch merging and the patches belong to."""
        num_stages = len(module.layers)
        merging = {f"merged_{i + 1}": i for i in range(num_stages - 1)}
        normed = not isinstance(module.patch_embed.norm, nn.Identity)
        return _streams(num_stages, merging, patches_normed=normed)

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the output for two random images, and how alike their tokens are."""
        image = images(module, module.patch_embed.img_size, generator)
        features = module.forward_features(image)
        return {"output": module.forward_head(features), "similarity": similarity(features)}


class MmpretrainSwinLayout(SwinLayout):
    """The axes of mmpretrain's Swin, SimMIM's too.

    A stage ends with its patch merging, which orders channels before neighbours.
    """

    stages, attention = "stages", "attn.w_msa"
    patterns = {
        "patch_embed.projection.*": "patch_embed <- 3 patch patch",
        "patch_embed.norm.*": "patch_embed -> embed_0",
        "absolute_pos_embed": "1 (height width) -> embed_0",
        "mask_token": "1 1 embed_0",
        f"stages.{{stage}}.blocks.{{block}}.{attention}.relative_position_index": "constant:",
        **_blocks("stages.{stage}.blocks.{block}", attention, "ffn.layers.0.0", "ffn.layers.1"),
        "stages.{stage}.downsample.norm.*": "(embed_{stage} 4)",
        "stages.{stage}.downsample.reduction.*": "next_{stage} <- (embed_{stage} 4)",
        "norm{stage}.*": "embed_{stage}",
    }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return also the patches of an image, where it has positions."""
        grid = dict(zip(("height", "width"), module.patch_resolution, strict=True))
        return {**super().sizes(module), **(grid if module.use_abs_pos_embed else {})}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which stream each stage, each patch merging and the patches belong to."""
        num_stages = len(module.stages)
        merging = {f"next_{i}": i + 1 for i in range(num_stages - 1)}
        normed = module.patch_embed.norm is not None
        return _streams(num_stages, merging, patches_normed=normed)

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the feature maps of two random images, and how alike their tokens are.

        Half of the patches are masked where the model masks.
        """
        inputs = [images(module, module.patch_embed.init_input_size, generator)]
        if hasattr(module, "mask_token"):
            mask = torch.rand(2, *module.patch_resolution, generator=generator) < 0.5
            inputs.append(mask.to(inputs[0]))
        outputs = dict(enumerate(module(*inputs)))
        alike = {f"similarity_{i}": similarity(maps) for i, maps in outputs.items()}
        return {f"output_{i}": maps for i, maps in outputs.items()} | alike


def _streams(
    num_stages: int, merging: Mapping[str, int], *, patches_normed: bool
) -> dict[str, str]:
    """Return the stream of every axis that is one, by the axis.

    Args:
        num_stages: number of stages, the last of which writes ``embed``.
        merging: the stage whose stream an axis of patch merging is.
        patches_normed: whether a norm parts the patches from the first stream.
    """
    aliases = {f"embed_{num_stages - 1}": "embed"}
    streams = [aliases.get(f"embed_{stage}", f"embed_{stage}") for stage in range(num_stages)]
    aliases |= {axis: streams[stage] for axis, stage in merging.items()}
    return aliases if patches_normed else {**aliases, "patch_embed": streams[0]}
