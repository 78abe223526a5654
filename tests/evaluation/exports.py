"""Small exports with fresh weights, one a format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compt.interfaces import Member, Paradigm

LLAMA = dict(
    model_type="llama",
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


def _written(paradigm: Paradigm, model: object, folder: Path) -> Path:
    torch.manual_seed(0)
    built = paradigm.build_model(Member("made", model))
    folder.mkdir(parents=True)
    paradigm.export(built.eval(), folder)
    return folder


def clip(folder: Path, width: int = 32) -> Path:
    """A folder of open_clip."""
    pytest.importorskip("open_clip")
    from compt.paradigms.clip import Clip

    vision = dict(image_size=32, patch_size=8, width=width, layers=2, head_width=16)
    text = dict(context_length=12, width=width, layers=2, heads=2)
    return _written(Clip(), dict(embed_dim=32, vision_cfg=vision, text_cfg=text), folder)


def mae(folder: Path) -> Path:
    """A folder of mmpretrain with one of timm in it."""
    pytest.importorskip("mmpretrain")
    from compt.paradigms.mae import Mae
    from tests.paradigms.mae_models import mae as config

    return _written(Mae(), config(), folder)


def swin(folder: Path) -> Path:
    """A folder of mmpretrain whose encoder timm does not have."""
    pytest.importorskip("mmpretrain")
    from compt.paradigms.mae import Mae
    from tests.paradigms.mae_models import simmim

    return _written(Mae(), simmim(), folder)


def llama(folder: Path) -> Path:
    """A folder of transformers, which reads bytes."""
    pytest.importorskip("transformers")
    from compt.paradigms.causal_lm import CausalLm

    return _written(CausalLm(context=64), LLAMA, folder)
