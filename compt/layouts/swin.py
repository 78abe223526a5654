"""Layouts of Swin transformers, timm's and mmpretrain's.

Every stage has a residual stream of its own. The streams are ``embed_0``, ``embed_1``, ... and,
last, ``embed``, which heads and projections read. Patch merging reads four tokens of one stream at
once and writes the next stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity

TIMM_BLOCK = "layers.{stage}.blocks.{block}"
MMPRETRAIN_BLOCK = "stages.{stage}.blocks.{block}"
MMPRETRAIN_ATTENTION = f"{MMPRETRAIN_BLOCK}.attn.w_msa"


class TimmSwinLayout(Layout):
    """The axes of timm's Swin.

    A stage begins with its patch merging, so that ``merged_{stage}`` is the stream of the stage
    before.
    """

    patterns = {
        "patch_embed.proj.weight": "patch_embed <- 3 patch patch",
        "patch_embed.proj.bias": "patch_embed",
        "patch_embed.norm.weight": "layer_norm_gain: patch_embed -> embed_0",
        "patch_embed.norm.bias": "layer_norm_bias: patch_embed -> embed_0",
        "layers.{stage}.downsample.norm.weight": "(4 merged_{stage})",
        "layers.{stage}.downsample.norm.bias": "(4 merged_{stage})",
        "layers.{stage}.downsample.reduction.weight": "embed_{stage} <- (4 merged_{stage})",
        f"{TIMM_BLOCK}.norm1.weight": "embed_{stage}",
        f"{TIMM_BLOCK}.norm1.bias": "embed_{stage}",
        f"{TIMM_BLOCK}.attn.relative_position_bias_table": "position_{stage} -> heads_{stage}",
        f"{TIMM_BLOCK}.attn.qkv.weight": "(3 heads_{stage} head_dim) <- embed_{stage}",
        f"{TIMM_BLOCK}.attn.qkv.bias": "(3 heads_{stage} head_dim)",
        f"{TIMM_BLOCK}.attn.proj.weight": "embed_{stage} <- (heads_{stage} head_dim)",
        f"{TIMM_BLOCK}.attn.proj.bias": "embed_{stage}",
        f"{TIMM_BLOCK}.norm2.weight": "embed_{stage}",
        f"{TIMM_BLOCK}.norm2.bias": "embed_{stage}",
        f"{TIMM_BLOCK}.mlp.fc1.weight": "mlp_{stage} <- embed_{stage}",
        f"{TIMM_BLOCK}.mlp.fc1.bias": "mlp_{stage}",
        f"{TIMM_BLOCK}.mlp.fc2.weight": "embed_{stage} <- mlp_{stage}",
        f"{TIMM_BLOCK}.mlp.fc2.bias": "embed_{stage}",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "head.fc.weight": "classes <- embed",
        "head.fc.bias": "classes",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads of each stage, which the fused qkv does not tell."""
        blocks = {f"heads_{i}": stage.blocks for i, stage in enumerate(module.layers)}
        return {name: stage[0].attn.num_heads for name, stage in blocks.items() if len(stage)}

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


class MmpretrainSwinLayout(Layout):
    """The axes of mmpretrain's Swin, SimMIM's too.

    A stage ends with its patch merging, which orders channels before neighbours.
    """

    patterns = {
        "patch_embed.projection.weight": "patch_embed <- 3 patch patch",
        "patch_embed.projection.bias": "patch_embed",
        "patch_embed.norm.weight": "layer_norm_gain: patch_embed -> embed_0",
        "patch_embed.norm.bias": "layer_norm_bias: patch_embed -> embed_0",
        "absolute_pos_embed": "1 position embed_0",
        "mask_token": "1 1 embed_0",
        f"{MMPRETRAIN_BLOCK}.norm1.weight": "embed_{stage}",
        f"{MMPRETRAIN_BLOCK}.norm1.bias": "embed_{stage}",
        f"{MMPRETRAIN_ATTENTION}.relative_position_bias_table": "position_{stage} -> heads_{stage}",
        f"{MMPRETRAIN_ATTENTION}.relative_position_index": "constant:",
        f"{MMPRETRAIN_ATTENTION}.qkv.weight": "(3 heads_{stage} head_dim) <- embed_{stage}",
        f"{MMPRETRAIN_ATTENTION}.qkv.bias": "(3 heads_{stage} head_dim)",
        f"{MMPRETRAIN_ATTENTION}.proj.weight": "embed_{stage} <- (heads_{stage} head_dim)",
        f"{MMPRETRAIN_ATTENTION}.proj.bias": "embed_{stage}",
        f"{MMPRETRAIN_BLOCK}.norm2.weight": "embed_{stage}",
        f"{MMPRETRAIN_BLOCK}.norm2.bias": "embed_{stage}",
        f"{MMPRETRAIN_BLOCK}.ffn.layers.0.0.weight": "mlp_{stage} <- embed_{stage}",
        f"{MMPRETRAIN_BLOCK}.ffn.layers.0.0.bias": "mlp_{stage}",
        f"{MMPRETRAIN_BLOCK}.ffn.layers.1.weight": "embed_{stage} <- mlp_{stage}",
        f"{MMPRETRAIN_BLOCK}.ffn.layers.1.bias": "embed_{stage}",
        "stages.{stage}.downsample.norm.weight": "(embed_{stage} 4)",
        "stages.{stage}.downsample.norm.bias": "(embed_{stage} 4)",
        "stages.{stage}.downsample.reduction.weight": "next_{stage} <- (embed_{stage} 4)",
        "norm{stage}.weight": "embed_{stage}",
        "norm{stage}.bias": "embed_{stage}",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads of each stage, which the fused qkv does not tell."""
        blocks = {f"heads_{i}": stage.blocks for i, stage in enumerate(module.stages)}
        return {name: stage[0].attn.w_msa.num_heads for name, stage in blocks.items() if len(stage)}

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
