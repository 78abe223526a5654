"""Build models of a paradigm from a seed alone, and describe them with their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compt.errors import ConfigError
from compt.growth.axes import describe
from compt.interfaces import Architecture, Member, Outputs, Paradigm
from compt.interfaces.paradigm import FOLLOW
from compt.registry import PARADIGMS


def build_paradigm(config: Mapping[str, Any], *, missing_ok: bool = False) -> Paradigm:
    """Build a paradigm from its config, which may name a checkpoint that it is to follow.

    Args:
        config: ``dict(type=..., ...)``; under ``FOLLOW`` it may have the path of a checkpoint.
        missing_ok: whether one that is not there is passed over, as in a plan, which may be made
            elsewhere.

    Raises:
        ConfigError: there is no such checkpoint, or what it says cannot be followed.
    """
    options = dict(config)
    path = options.pop(FOLLOW, None)
    paradigm: Paradigm = PARADIGMS.build(options)
    if path is None or (missing_ok and not Path(path).exists()):
        return paradigm
    if not Path(path).exists():
        raise ConfigError(f"There is no checkpoint '{path}'.", do="Check the path.")
    paradigm.follow(Path(path))
    return paradigm


def build_member(paradigm: Paradigm, member: Member, *, seed: int) -> nn.Module:
    """Build a member's model with fresh weights that depend on the seed alone.

    Constructors draw from the global random state. It is forked, so that what was drawn
    before does not matter here, and what is drawn here does not matter after.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return paradigm.build_model(member)


def architecture(paradigm: Paradigm, model: nn.Module, outputs: Outputs) -> Architecture:
    """Describe a model together with the widths of its outputs and features.

    Args:
        paradigm: names the outputs, and those that transferers compare by default.
        model: on any device, meta included.
        outputs: of the model on any batch, ``[batch, ..., width]``; scalars such as a
            logit scale have no width and are left out.
    """
    widths = {
        name: outputs[name].shape[-1] for name in sorted(paradigm.outputs) if outputs[name].ndim > 1
    }
    features = {name: widths[name] for name in paradigm.features or widths}
    tokens = {name: tuple(outputs[name].shape[1:-1]) for name in widths}
    return replace(describe(model), features=features, outputs=widths, tokens=tokens)
