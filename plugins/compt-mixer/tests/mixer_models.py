"""Small models to grow, with weights that depend on their sizes alone."""

from __future__ import annotations

import torch
from timm.layers import GluMlp
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from torch import nn
from transformers import MambaConfig, MambaForCausalLM


def mixer(width: int = 32, depth: int = 2, **options) -> MlpMixer:
    """Make an MLP-Mixer over 16 patches of images of 32 pixels."""
    torch.manual_seed(width)
    sizes = dict(num_classes=5, img_size=32, patch_size=8, embed_dim=width, num_blocks=depth)
    return MlpMixer(**{**sizes, **options})


def gmixer(width: int = 32, depth: int = 2, **options) -> MlpMixer:
    """Make a Mixer with gated MLPs, as timm's gmixer_24_224 has them."""
    return mixer(
        width,
        depth,
        **{**dict(mlp_layer=GluMlp, act_layer=nn.SiLU, mlp_ratio=(1.0, 4.0)), **options},
    )


def resmlp(width: int = 32, depth: int = 2, **options) -> MlpMixer:
    """Make a ResMLP, with one matrix over the positions and factors in place of norms."""
    return mixer(
        width, depth, **{**dict(block_layer=ResBlock, norm_layer=Affine, mlp_ratio=4.0), **options}
    )


def normed_mixer(width: int = 32, depth: int = 2) -> MlpMixer:
    """Make a Mixer with a norm after its patches."""
    return mixer(width, depth, stem_norm=True)


def mamba(
    width: int = 32, depth: int = 2, *, expand: int = 2, tied: bool = True, **options
) -> MambaForCausalLM:
    """Make a Mamba over 61 tokens."""
    torch.manual_seed(width)
    sizes = dict(vocab_size=61, hidden_size=width, num_hidden_layers=depth, expand=expand)
    fixed = dict(state_size=4, time_step_rank=3, tie_word_embeddings=tied)
    return MambaForCausalLM(MambaConfig(**{**sizes, **fixed, **options}))


def randomised(module: nn.Module) -> nn.Module:
    """Add noise to every parameter, in float64, as default values hide most bugs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in module.double().parameters():
            param.add_(0.2 * torch.randn(param.shape, generator=generator, dtype=torch.float64))
    return module
