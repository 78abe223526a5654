"""Models of mmpretrain filled from checkpoints: whole ones, or the backbone alone from an
encoder's.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import mmpretrain, timm_vit
from compt.weights import load_state

PER_TASK = ("ln1.", "ln2.", "mask_token")
"""What a backbone has for one task and not for another: the norms at its end, a token in place of
masked patches.
"""


def fill(model: nn.Module, path: Path) -> None:
    """Fill a model of mmpretrain from mmpretrain's or timm's weights, a model of timm from timm's.

    Raises:
        ConfigError: they are not of this model; it is then as it was.
    """
    folder = path.is_dir() and not mmpretrain.recognises(path)
    state = mmpretrain.read_weights(path / timm_vit.WEIGHTS_FILE if folder else path)
    if isinstance(model, timm_vit.VisionTransformer):
        load_state(model, state, path)
        return
    backbone: Any = model.backbone
    if timm_vit.is_timm(state):
        state = timm_vit.from_timm(state, backbone)
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.{name}": value for name, value in state.items()}
    _check_heads(backbone, path)
    if state.keys() >= model.state_dict().keys():
        load_state(model, state, path)
        return
    part = {
        name.removeprefix("backbone."): v
        for name, v in state.items()
        if name.startswith("backbone.")
    }
    own = backbone.state_dict()
    fresh = [name for name in own.keys() - part.keys() if name.startswith(PER_TASK)]
    part = {
        name: value for name, value in part.items() if name in own or not name.startswith(PER_TASK)
    }
    load_state(backbone, part | {name: own[name] for name in fresh}, path)
    but = f" but for {', '.join(sorted(fresh))}" if fresh else ""
    warnings.warn(
        f"'{path}' filled the backbone{but}; the rest of the model starts fresh.", stacklevel=3
    )


def _check_heads(backbone: nn.Module, path: Path) -> None:
    """Raise ConfigError where a checkpoint says that it has other heads, which no shape shows."""
    with torch.device("meta"):
        if mmpretrain.recognises(path):
            given: Any = mmpretrain.build(mmpretrain.read(path)[0], path.stem).backbone
        elif timm_vit.recognises(path):
            given = timm_vit.build(
                Member(path.name, json.loads((path / timm_vit.CONFIG_FILE).read_text()))
            )
        else:
            return
    both = (backbone, given)
    widths = [getattr(one, "embed_dims", None) or one.embed_dim for one in both]
    heads = [[m.num_heads for m in one.modules() if hasattr(m, "num_heads")] for one in both]
    if widths[0] == widths[1] and len(heads[0]) == len(heads[1]) and heads[0] != heads[1]:
        raise ConfigError(
            f"'{path}' fits the member's shapes, but has {heads[1][0]} heads in place of {heads[0][0]}.",
            do="Give the member the number of heads of the checkpoint.",
        )
