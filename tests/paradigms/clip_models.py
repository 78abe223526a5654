"""Small CLIP models of every kind, and their batches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

open_clip = pytest.importorskip("open_clip")
pytest.importorskip("timm")
from open_clip.model import CLIP, CustomTextCLIP

from compt.interfaces import Member
from compt.paradigms.clip.paradigm import Clip
from compt.testing.contracts import randomised

MODEL = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=16, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=32, heads=2, layers=2),
)


CUSTOM = dict(MODEL, custom_text=True)


TIMM = dict(MODEL, vision_cfg=dict(timm_model_name="test_vit", image_size=160, timm_pool="token"))


VIT_TINY = dict(
    MODEL, vision_cfg=dict(timm_model_name="vit_tiny_patch16_224", image_size=224), custom_text=True
)


KINDS = [
    pytest.param(MODEL, CLIP, id="own"),
    pytest.param(CUSTOM, CustomTextCLIP, id="custom_text"),
    pytest.param(TIMM, CLIP, id="timm"),
    pytest.param(VIT_TINY, CustomTextCLIP, id="vit_tiny"),
]


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def made(model=MODEL, *, seed: int = 0, **options) -> tuple[Clip, nn.Module]:
    """A paradigm and a model of it with random gains, biases and tokens, in eval mode."""
    paradigm = Clip(**options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return paradigm, randomised(paradigm.build_model(Member("a", model)), scale=0.02).eval()


def changed(model, **options):
    """A model config with other values, as ``vision_image_size=16``."""
    model = copy.deepcopy(model)
    for key, value in options.items():
        tower, _, name = key.partition("_")
        model[f"{tower}_cfg"][name] = value
    return model


def raw(dataset, indices=range(8)) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([dataset[i] for i in indices])


def prepared(paradigm: Clip, batch):
    return paradigm.prepare(batch, generator=torch.Generator().manual_seed(0))


def transform(size, *, train=False, mean=MEAN, std=STD):
    return open_clip.image_transform(
        size, is_train=train, mean=mean, std=std, resize_mode="shortest", interpolation="bicubic"
    )
