"""Build models of a paradigm from a seed alone, and describe them with their outputs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compt.growth.axes import describe
from compt.interfaces import Architecture, Member, Outputs, Paradigm


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
    return replace(describe(model), features=features, outputs=widths)
