"""Fill models of mmpretrain from checkpoints, whether of all of it or of an encoder alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import mmpretrain, timm_vit
from compt.weights import load_state

BACKBONE = "backbone."
PER_TASK = ("ln1.", "ln2.", "mask_token")
"""Name the tensors that a backbone has for one task and not for another.

These are the norms at its end, and a token in place of masked patches.
"""


def fill(model: nn.Module, path: Path) -> None:
    """Fill a model of mmpretrain from mmpretrain's or timm's weights, a model of timm from timm's.

    Raises:
        ConfigError: they are not of this model; it is then as it was.
    """
    is_timm_folder = path.is_dir() and not mmpretrain.recognises(path)
    state = mmpretrain.read_weights(timm_vit.weights_file(path) if is_timm_folder else path)
    if isinstance(model, TimmVisionTransformer):
        load_state(model, state, path)
        return
    backbone: Any = model.backbone
    state = _renamed(state, backbone)
    _check_heads(backbone, path)
    if state.keys() >= model.state_dict().keys():
        load_state(model, state, path)
        return
    fresh = _fill_backbone(backbone, state, path)
    but = f" but for {', '.join(sorted(fresh))}" if fresh else ""
    warnings.warn(
        f"'{path}' filled the backbone{but}; the rest of the model starts fresh.", stacklevel=3
    )


def _renamed(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Return a state dict with the names of mmpretrain's algorithms.

    timm's names, and those of a backbone by itself, are turned into theirs.
    """
    if timm_vit.is_timm(state):
        state = timm_vit.from_timm(state, backbone)
    if not any(name.startswith(BACKBONE) for name in state):
        state = {f"{BACKBONE}{name}": value for name, value in state.items()}
    return state


def _fill_backbone(backbone: nn.Module, state: dict[str, Tensor], path: Path) -> list[str]:
    """Fill a backbone from an algorithm's state dict, and return what of it stays fresh."""
    own = backbone.state_dict()
    weights = {}
    for name, value in state.items():
        inner = name.removeprefix(BACKBONE)
        is_of_other_task = inner not in own and inner.startswith(PER_TASK)
        if name.startswith(BACKBONE) and not is_of_other_task:
            weights[inner] = value
    fresh = [name for name in own.keys() - weights.keys() if name.startswith(PER_TASK)]
    load_state(backbone, weights | {name: own[name] for name in fresh}, path)
    return fresh


def _check_heads(backbone: nn.Module, path: Path) -> None:
    """Raise ConfigError where a checkpoint says that it has other heads, which no shape shows."""
    with torch.device("meta"):
        if mmpretrain.recognises(path):
            source: Any = mmpretrain.build(mmpretrain.read(path)[0], path.stem).backbone
        elif timm_vit.recognises(path):
            source = timm_vit.build(Member(path.name, timm_vit.read_folder(path)))
        else:
            return
    own_heads, source_heads = _heads(backbone), _heads(source)
    # Of another width or depth, the weights do not fit, which loading them says better.
    same_shapes = _width(backbone) == _width(source) and len(own_heads) == len(source_heads)
    if same_shapes and own_heads != source_heads:
        raise ConfigError(
            f"'{path}' fits the member's shapes, "
            f"but has {source_heads[0]} heads in place of {own_heads[0]}.",
            do="Give the member the number of heads of the checkpoint.",
        )


def _width(backbone: Any) -> int:
    """Return the width of tokens, under mmpretrain's name or timm's."""
    width: int = getattr(backbone, "embed_dims", None) or backbone.embed_dim
    return width


def _heads(backbone: nn.Module) -> list[int]:
    """Return the number of heads of each attention."""
    modules: list[Any] = [m for m in backbone.modules() if hasattr(m, "num_heads")]
    return [attention.num_heads for attention in modules]
