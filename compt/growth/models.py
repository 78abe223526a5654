"""Models as a paradigm builds them: with weights that depend on a seed alone, and described with
their outputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compt.growth.axes import describe
from compt.interfaces import Architecture, Member, Outputs, Paradigm


def build_member(paradigm: Paradigm, member: Member, *, seed: int) -> nn.Module:
    """Build a member's model; its fresh weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return paradigm.build_model(member)


def architecture(paradigm: Paradigm, model: nn.Module, outputs: Outputs) -> Architecture:
    """Describe a model together with the widths of its outputs and features, from outputs of any
    batch.
    """
    widths = {
        name: outputs[name].shape[-1] for name in sorted(paradigm.outputs) if outputs[name].ndim > 1
    }
    features = {name: widths[name] for name in paradigm.features or widths}
    return replace(describe(model), features=features, outputs=widths)
