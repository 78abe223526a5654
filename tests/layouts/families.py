"""Small families of the architectures that have layouts, in float64, and how they may grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from compt.testing.contracts import randomised

HOPS = ("whole", "other", "deep")
"""A whole multiple of every width, another width, and more blocks."""


@dataclass(frozen=True)
class Family:
    """One architecture at four sizes.

    Sizes are arguments of ``make``: those of the source, and for each hop what the target changes.
    """

    make: Callable[..., nn.Module]
    source: Mapping[str, Any]
    whole: Mapping[str, Any]
    other: Mapping[str, Any]
    deep: Mapping[str, Any]
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By hop, the reason for which 'lossless' cannot keep the function, in part."""

    def pair(self, hop: str) -> tuple[nn.Module, nn.Module]:
        """Return a source with random weights and statistics, and a fresh target."""
        target = {**self.source, **getattr(self, hop)}
        return trained(self.make(**self.source)), self.make(**target)


def trained(model: nn.Module) -> nn.Module:
    """Return a model with random weights and running statistics, as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.num_batches_tracked.fill_(17)
    return randomised(model)


# transformers' encoders


def encoder(name: str, width=32, layers=2, mlp=48, *, head="ForMaskedLM", **options) -> nn.Module:
    """Make an encoder of text, with heads of 8 units."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        **dict(vocab_size=61, hidden_size=width, num_hidden_layers=layers, intermediate_size=mlp),
        **dict(num_attention_heads=width // 8, max_position_embeddings=40, pad_token_id=1),
        **options,
    )
    torch.manual_seed(width)
    return getattr(transformers, name + head)(config).double()


def modern_bert(width=32, layers=4, mlp=48, **options) -> nn.Module:
    """Make a ModernBERT whose every third block sees the whole text."""
    ids = dict(bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
    return encoder("ModernBert", width, layers, mlp, local_attention=8, **ids, **options)


# timm


def vit(width=32, depth=2, **options) -> nn.Module:
    """Make timm's ViT, with heads of 8 units and 4 patches."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(width)
    sizes = dict(img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 8)
    return VisionTransformer(**{**sizes, "num_classes": 5, **options}).double()


def vit_of_post_norm(width=32, depth=2) -> nn.Module:
    """Make a ViT whose norms end its branches, as Swin V2's do."""
    from timm.models.vision_transformer import ResPostBlock

    return vit(width, depth, block_fn=ResPostBlock)


def dino(width=32, depth=2, **options) -> nn.Module:
    """Make a ViT as DINOv2's largest is, with registers, layer scale and SwiGLU."""
    from timm.layers import SwiGLUPacked

    ours = dict(reg_tokens=3, init_values=0.1, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    return vit(width, depth, no_embed_class=True, **{"mlp_ratio": 3.0, **ours, **options})


def eva(width=32, depth=2, **options) -> nn.Module:
    """Make timm's Eva, with SwiGLU and rotary positions."""
    from timm.models.eva import Eva

    torch.manual_seed(width)
    sizes = dict(img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 8)
    ours = dict(swiglu_mlp=True, use_rot_pos_emb=True, num_classes=5, mlp_ratio=2.0)
    return Eva(**{**sizes, **ours, **options}).double()


def swin(width=16, depths=(2, 2), **options) -> nn.Module:
    """Make timm's Swin, whose first stage shifts its windows in every second block."""
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(width)
    heads = [width * 2**i // 8 for i in range(len(depths))]
    sizes = dict(img_size=16, patch_size=2, window_size=4, num_classes=5)
    options = {**sizes, **options}
    return SwinTransformer(embed_dim=width, depths=depths, num_heads=heads, **options).double()


def mmpretrain_swin(width=16, depths=(2, 2), **options) -> nn.Module:
    """Make mmpretrain's Swin of the same sizes."""
    from mmpretrain.models import SwinTransformer

    class Swin(SwinTransformer):
        def train(self, mode: bool = True) -> nn.Module:  # mmpretrain's returns nothing
            super().train(mode)
            return self

    torch.manual_seed(width)
    heads = [width // 8 * 2**i for i in range(len(depths))]
    arch = dict(embed_dims=width, depths=[*depths], num_heads=heads)
    sizes = dict(img_size=16, patch_size=2, window_size=4, out_indices=(len(depths) - 1,))
    return Swin(arch=arch, **{**sizes, **options}).double()


def mmpretrain_vit(width=32, depth=2, **options) -> nn.Module:
    """Make mmpretrain's ViT."""
    from mmpretrain.models import VisionTransformer

    class Vit(VisionTransformer):
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            return self

    torch.manual_seed(width)
    arch = dict(embed_dims=width, num_layers=depth, num_heads=width // 8)
    arch["feedforward_channels"] = 2 * width
    return Vit(arch=arch, **{"img_size": 16, "patch_size": 8, **options}).double()


def resnet(block="Bottleneck", width=16, depths=(1, 1, 2, 1), **options) -> nn.Module:
    """Make timm's ResNet."""
    from timm.models import resnet as resnets

    torch.manual_seed(width)
    channels = (width, width, 2 * width, 2 * width)
    options = {"channels": channels, "num_classes": 5, **options}
    return resnets.ResNet(getattr(resnets, block), depths, **options).double()


def convnext(width=8, depths=(1, 1, 2, 1), **options) -> nn.Module:
    """Make timm's ConvNeXt."""
    from timm.models.convnext import ConvNeXt

    torch.manual_seed(width)
    dims = (width, width, 2 * width, 2 * width)
    return ConvNeXt(dims=dims, depths=depths, **{"num_classes": 5, **options}).double()


# open_clip


def text_config(width: int, layers: int, **options) -> dict[str, Any]:
    """Return the config of an own text tower, with heads of 8 units."""
    sizes = dict(context_length=10, vocab_size=61, width=width, layers=layers, heads=width // 8)
    return {**sizes, **options}


def clip(width=32, layers=2, *, features=24, vision=None, text=None, custom=False) -> nn.Module:
    """Make a CLIP of own towers, or with what ``vision`` says as image tower."""
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(width)
    own = dict(image_size=16, patch_size=8, width=width, layers=layers, head_width=8)
    cls = CustomTextCLIP if custom else CLIP
    texts = text_config(width, layers, **(text or {}))
    return cls(features, {**own, **(vision or {})}, texts).double()


def clip_resnet(width=8, layers=(1, 1, 1, 1), **options) -> nn.Module:
    """Make a CLIP whose image tower is open_clip's ResNet."""
    from open_clip.model import CLIP

    torch.manual_seed(width)
    vision = dict(image_size=64, layers=list(layers), width=width, head_width=32)
    text = text_config(4 * width, layers[0])
    return CLIP(24, vision, text, **options).double()


def clip_around(trunk: Callable[..., nn.Module], projection="linear", **sizes) -> nn.Module:
    """Make a CLIP whose image tower is a model of timm, which open_clip gets from its registry."""
    from open_clip.timm_model import TimmModel
    from timm.layers import Mlp

    model = clip(32, 2, custom=True)
    inner = trunk(**sizes, **({} if projection == "none" else {"num_classes": 0}))
    tower = TimmModel.__new__(TimmModel)
    nn.Module.__init__(tower)
    tower.image_size, tower.trunk = (64, 64), inner
    if hasattr(inner, "patch_embed"):
        tower.image_size = inner.patch_embed.img_size
    tower.head = nn.Sequential()
    width = inner.num_features
    if projection == "linear":
        tower.head.add_module("proj", nn.Linear(width, 24, bias=False).double())
    elif projection == "mlp":
        tower.head.add_module("mlp", Mlp(width, 48, 24, bias=(True, False)).double())
    model.visual = tower
    return model


def siglip(width=32, layers=2, **options) -> nn.Module:
    """Make a SigLIP, whose image features are those of attention over a ViT's tokens."""
    from open_clip.model import CustomTextCLIP

    torch.manual_seed(width)
    text = dict(no_causal_mask=True, proj_bias=True, pool_type="last")
    vision = dict(image_size=16, patch_size=8, width=32, layers=1, head_width=8)
    texts = text_config(width, layers, **text)
    model = CustomTextCLIP(width, vision, texts, init_logit_bias=-10.0).double()
    trunk = partial(vit, class_token=False, global_pool="map", num_classes=0, **options)
    model.visual = clip_around(trunk, "none", width=width, depth=layers).visual
    return model


def coca(width=32, layers=2) -> nn.Module:
    """Make a CoCa, whose decoder reads 6 image tokens."""
    from open_clip.coca_model import CoCa

    torch.manual_seed(width)
    pooling = dict(attentional_pool=True, attn_pooler_queries=6, attn_pooler_heads=width // 8)
    vision = dict(image_size=16, patch_size=8, width=width // 2 * 3, layers=layers, head_width=8)
    text = text_config(width, layers, embed_cls=True, output_tokens=True)
    decoder = dict(width=width, layers=layers, heads=width // 8, context_length=10)
    vision |= dict(output_tokens=True, **pooling)
    model = CoCa(width, decoder, text, vision).double()
    nn.init.normal_(model.text_decoder.text_projection)  # which open_clip leaves as memory is
    return model


def clip_hf(name="Roberta", width=32, layers=2, projection="mlp", **options) -> nn.Module:
    """Make a CLIP whose text tower is one of transformers' encoders."""
    from open_clip.hf_model import HFTextEncoder

    model = clip(width, layers, custom=True)
    config = encoder(name, width, layers, head="Model", **options).config
    pooling = dict(pooler_type="mean_pooler", proj_type=projection)
    model.text = HFTextEncoder("", 24, config, **pooling).double()
    model.context_length, model.vocab_size = model.text.context_length, model.text.vocab_size
    return model


LN_PRE = "ln_pre.weight' writes the residual stream through a norm"
POST_NORM = "normalises the stream itself (post-norm): no new block passes its input on unchanged"
BERT = dict(other="embeddings.LayerNorm.weight' writes the residual stream", deep=POST_NORM)
WIDER = dict(source=dict(width=32), whole=dict(width=64), other=dict(width=48))
WIDE, DEEP = dict(**WIDER, deep=dict(depth=5)), dict(**WIDER, deep=dict(layers=5))
STAGES = dict(
    source=dict(width=32, depths=(1, 1, 2, 1)),
    whole=dict(width=64),
    other=dict(width=48),
    deep=dict(depths=(2, 1, 4, 3)),
)
CONVNEXT = {
    **dict(source=dict(width=8), whole=dict(width=16), other=dict(width=12)),
    "deep": dict(depths=(2, 1, 4, 1)),
    "reasons": dict(
        other="blocks.{block}.norm.weight' normalises over 'mid_0', which grows: exact at multiples"
    ),
}
SWIN = dict(
    source=dict(width=16),
    whole=dict(width=32),
    other=dict(width=24),
    deep=dict(depths=(4, 6)),
    reasons=dict(other="patch_embed.norm.weight' writes the residual stream through a norm"),
)
INNER = dict(other="attn.norm.weight' normalises over 'heads+head_dim', which grows")

FAMILIES: Mapping[str, Family] = {
    "BERT": Family(partial(encoder, "Bert"), **DEEP, reasons=BERT),
    "RoBERTa": Family(partial(encoder, "Roberta"), **DEEP, reasons=BERT),
    "BERT without a head": Family(partial(encoder, "Bert", head="Model"), **DEEP, reasons=BERT),
    "ModernBERT": Family(
        modern_bert,
        **{**WIDER, "source": dict(width=32, layers=4)},
        deep=dict(layers=10),
        reasons=dict(other="embeddings.norm.weight' writes the residual stream through a norm"),
    ),
    "ViT (timm)": Family(vit, **WIDE),
    "DINOv2 (registers, layer scale, SwiGLU)": Family(dino, **WIDE),
    "ViT with norms behind its branches": Family(
        vit_of_post_norm,
        **WIDE,
        reasons=dict(other="norm1.weight' writes the residual stream through a norm"),
    ),
    "EVA (SwiGLU, rotary positions)": Family(
        partial(eva, num_reg_tokens=2, init_values=0.1), **WIDE
    ),
    "EVA-02 (norms inside attention and MLP)": Family(
        partial(eva, scale_mlp=True, scale_attn_inner=True, qkv_fused=False),
        **WIDE,
        reasons=INNER,
    ),
    "ViT (mmpretrain)": Family(mmpretrain_vit, **WIDE),
    "Swin (timm)": Family(swin, **SWIN),
    "Swin (mmpretrain)": Family(mmpretrain_swin, **SWIN),
    # Not as wide as the stem, as its stream would then be the first stage's too.
    "ResNet, BasicBlock": Family(
        partial(resnet, "BasicBlock"),
        source=dict(width=16, depths=(1, 1, 2, 1)),
        whole=dict(width=32),
        other=dict(width=24),
        deep=dict(depths=(2, 1, 4, 3)),
    ),
    "ResNet, Bottleneck": Family(resnet, **STAGES),
    "ResNet-D (deep stem, averages)": Family(
        partial(resnet, stem_type="deep", stem_width=32, avg_down=True), **STAGES
    ),
    "ResNeXt": Family(partial(resnet, cardinality=4, base_width=32), **STAGES),
    "ConvNeXt": Family(convnext, **CONVNEXT),
    "ConvNeXt V2": Family(partial(convnext, use_grn=True, ls_init_value=None), **CONVNEXT),
    "CLIP (open_clip)": Family(clip, **DEEP, reasons=dict(other=LN_PRE)),
    "CLIP without ln_pre": Family(partial(clip, vision=dict(no_ln_pre=True)), **DEEP),
    "CLIP, ResNet of open_clip": Family(
        clip_resnet,
        source=dict(width=8),
        whole=dict(width=16),
        other=dict(width=12),
        deep=dict(layers=(2, 1, 3, 2)),
    ),
    "CLIP, ResNet of timm": Family(partial(clip_around, resnet), **STAGES),
    "CLIP, ConvNeXt": Family(
        partial(clip_around, convnext, "mlp"),
        **{**CONVNEXT, "reasons": dict(other="normalises over 'visual.trunk.mid_0', which grows")},
    ),
    "CLIP, DINOv2": Family(partial(clip_around, dino), **WIDE),
    "CLIP, BERT as text tower": Family(partial(clip_hf, "Bert"), **DEEP, reasons=BERT),
    "CLIP, RoBERTa as text tower": Family(partial(clip_hf, "Roberta"), **DEEP, reasons=BERT),
    "SigLIP": Family(siglip, **DEEP, reasons=dict(other="'compared' grows from 32 to 48")),
    "CoCa": Family(
        coca,
        **DEEP,
        reasons=dict(other="ln_post.weight' writes the residual stream through a norm"),
    ),
}
