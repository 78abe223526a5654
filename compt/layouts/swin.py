"""Layouts of Swin transformers, timm's and mmpretrain's: every stage has a residual stream of its
own.

The streams are ``embed_0``, ``embed_1``, ... and, last, ``embed``, which heads and projections
read. Patch merging reads four tokens of one stream at once and writes the next stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity


class TimmSwinLayout(Layout):
    """timm's Swin: a stage begins with its patch merging, so ``merged_{stage}`` is the stream of
    the one before.
    """

    patterns = {
        "patch_embed.proj.weight": "patch_embed <- 3 patch patch",
        "patch_embed.proj.bias": "patch_embed",
        "patch_embed.norm.weight": "layer_norm_gain: patch_embed -> embed_0",
        "patch_embed.norm.bias": "layer_norm_bias: patch_embed -> embed_0",
        "layers.{stage}.downsample.norm.weight": "(4 merged_{stage})",
        "layers.{stage}.downsample.norm.bias": "(4 merged_{stage})",
        "layers.{stage}.downsample.reduction.weight": "embed_{stage} <- (4 merged_{stage})",
        "layers.{stage}.blocks.{block}.norm1.weight": "embed_{stage}",
        "layers.{stage}.blocks.{block}.norm1.bias": "embed_{stage}",
        "layers.{stage}.blocks.{block}.attn.relative_position_bias_table": "position_{stage} -> heads_{stage}",
        "layers.{stage}.blocks.{block}.attn.qkv.weight": "(3 heads_{stage} head_dim) <- embed_{stage}",
        "layers.{stage}.blocks.{block}.attn.qkv.bias": "(3 heads_{stage} head_dim)",
        "layers.{stage}.blocks.{block}.attn.proj.weight": "embed_{stage} <- (heads_{stage} head_dim)",
        "layers.{stage}.blocks.{block}.attn.proj.bias": "embed_{stage}",
        "layers.{stage}.blocks.{block}.norm2.weight": "embed_{stage}",
        "layers.{stage}.blocks.{block}.norm2.bias": "embed_{stage}",
        "layers.{stage}.blocks.{block}.mlp.fc1.weight": "mlp_{stage} <- embed_{stage}",
        "layers.{stage}.blocks.{block}.mlp.fc1.bias": "mlp_{stage}",
        "layers.{stage}.blocks.{block}.mlp.fc2.weight": "embed_{stage} <- mlp_{stage}",
        "layers.{stage}.blocks.{block}.mlp.fc2.bias": "embed_{stage}",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "head.fc.weight": "classes <- embed",
        "head.fc.bias": "classes",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """The number of heads of each stage, which the fused qkv does not tell."""
        return {
            f"heads_{i}": stage.blocks[0].attn.num_heads for i, stage in enumerate(module.layers)
        }  # type: ignore[arg-type, union-attr]

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Patch merging reads the stage before; without a norm the patches write the first stream
        itself.
        """
        count = len(module.layers)  # type: ignore[arg-type]
        bare = isinstance(module.patch_embed.norm, nn.Identity)  # type: ignore[union-attr]
        return _streams(count, {f"merged_{i + 1}": i for i in range(count - 1)}, bare)

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Output for two random images, and how alike its tokens are."""
        image = images(module, module.patch_embed.img_size, generator)  # type: ignore[union-attr, arg-type]
        features = module.forward_features(image)  # type: ignore[operator]
        return {"output": module.forward_head(features), "similarity": similarity(features)}  # type: ignore[operator]


class MmpretrainSwinLayout(Layout):
    """mmpretrain's Swin, SimMIM's too: a stage ends with its patch merging, channels before
    neighbours.
    """

    patterns = {
        "patch_embed.projection.weight": "patch_embed <- 3 patch patch",
        "patch_embed.projection.bias": "patch_embed",
        "patch_embed.norm.weight": "layer_norm_gain: patch_embed -> embed_0",
        "patch_embed.norm.bias": "layer_norm_bias: patch_embed -> embed_0",
        "absolute_pos_embed": "1 position embed_0",
        "mask_token": "1 1 embed_0",
        "stages.{stage}.blocks.{block}.norm1.weight": "embed_{stage}",
        "stages.{stage}.blocks.{block}.norm1.bias": "embed_{stage}",
        "stages.{stage}.blocks.{block}.attn.w_msa.relative_position_bias_table": "position_{stage} -> heads_{stage}",
        "stages.{stage}.blocks.{block}.attn.w_msa.relative_position_index": "constant:",
        "stages.{stage}.blocks.{block}.attn.w_msa.qkv.weight": "(3 heads_{stage} head_dim) <- embed_{stage}",
        "stages.{stage}.blocks.{block}.attn.w_msa.qkv.bias": "(3 heads_{stage} head_dim)",
        "stages.{stage}.blocks.{block}.attn.w_msa.proj.weight": "embed_{stage} <- (heads_{stage} head_dim)",
        "stages.{stage}.blocks.{block}.attn.w_msa.proj.bias": "embed_{stage}",
        "stages.{stage}.blocks.{block}.norm2.weight": "embed_{stage}",
        "stages.{stage}.blocks.{block}.norm2.bias": "embed_{stage}",
        "stages.{stage}.blocks.{block}.ffn.layers.0.0.weight": "mlp_{stage} <- embed_{stage}",
        "stages.{stage}.blocks.{block}.ffn.layers.0.0.bias": "mlp_{stage}",
        "stages.{stage}.blocks.{block}.ffn.layers.1.weight": "embed_{stage} <- mlp_{stage}",
        "stages.{stage}.blocks.{block}.ffn.layers.1.bias": "embed_{stage}",
        "stages.{stage}.downsample.norm.weight": "(embed_{stage} 4)",
        "stages.{stage}.downsample.norm.bias": "(embed_{stage} 4)",
        "stages.{stage}.downsample.reduction.weight": "next_{stage} <- (embed_{stage} 4)",
        "norm{stage}.weight": "embed_{stage}",
        "norm{stage}.bias": "embed_{stage}",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """The number of heads of each stage, which the fused qkv does not tell."""
        return {
            f"heads_{i}": stage.blocks[0].attn.w_msa.num_heads
            for i, stage in enumerate(module.stages)
        }  # type: ignore[arg-type, union-attr]

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Patch merging writes the stage after; without a norm the patches write the first stream
        itself.
        """
        count = len(module.stages)  # type: ignore[arg-type]
        bare = module.patch_embed.norm is None  # type: ignore[union-attr]
        return _streams(count, {f"next_{i}": i + 1 for i in range(count - 1)}, bare)

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Feature maps of two random images, half masked where the model masks, and how alike their
        tokens are.
        """
        inputs = [images(module, module.patch_embed.init_input_size, generator)]  # type: ignore[union-attr, arg-type]
        if hasattr(module, "mask_token"):
            mask = torch.rand(2, *module.patch_resolution, generator=generator) < 0.5  # type: ignore[misc]
            inputs.append(mask.to(inputs[0]))
        outputs = dict(enumerate(module(*inputs)))
        alike = {f"similarity_{i}": similarity(maps) for i, maps in outputs.items()}
        return {f"output_{i}": maps for i, maps in outputs.items()} | alike


def _streams(count: int, merging: Mapping[str, int], bare: bool) -> dict[str, str]:
    """Axis -> stream: of ``count`` stages, of patch merging (by stage), of ``bare`` patches, which
    have no norm.
    """
    names = {f"embed_{count - 1}": "embed"}
    names |= {
        axis: names.get(f"embed_{stage}", f"embed_{stage}") for axis, stage in merging.items()
    }
    return names | ({"patch_embed": names.get("embed_0", "embed_0")} if bare else {})
