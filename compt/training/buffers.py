"""Bring buffers of several processes together, as their rules say, and find those that differ."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import torch
from mmengine.dist import all_reduce, broadcast, get_world_size
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from compt.interfaces import BufferRule

WIDE = {torch.bool: torch.uint8, torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""What number formats that not every backend can reduce are sent as."""


@torch.no_grad()
def unite(module: nn.Module, rules: Mapping[str, BufferRule]) -> None:
    """Give all processes the same values of these buffers.

    Args:
        module: whose buffers they are.
        rules: by the buffer's name, as :func:`compt.interfaces.ruled_buffers` returns them; the
            same in every process.
    """
    if get_world_size() == 1:
        return
    for name, rule in rules.items():
        # Looked up anew, as a plug-in may have put another tensor in a buffer's place.
        buffer: Tensor = attrgetter(name)(module)
        sent = buffer.detach().to(WIDE.get(buffer.dtype, buffer.dtype), copy=True).contiguous()
        if rule == "first":
            broadcast(sent, src=0)
        else:
            all_reduce(sent, op=rule)
        buffer.copy_(sent)


@torch.no_grad()
def differing(module: nn.Module, rules: Mapping[str, BufferRule]) -> list[str]:
    """Return the names of the buffers without a rule that are not the same in every process.

    Every process has to call it. Parameters that are not trained are looked at too, where they are
    not sharded.
    """
    untrained = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
    state = {
        name: tensor.detach()
        for name, tensor in (*module.named_buffers(), *untrained)
        if name not in rules and not tensor.is_complex() and not isinstance(tensor, DTensor)
    }
    if get_world_size() == 1 or not state:
        return []
    sums = torch.stack([tensor.double().sum().nan_to_num() for tensor in state.values()])
    largest, smallest = sums.clone(), sums.clone()
    all_reduce(largest, op="max")
    all_reduce(smallest, op="min")
    return [name for name, differs in zip(state, largest != smallest, strict=True) if differs]
