"""Bring buffers of several processes together, as their rules say."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import torch
from mmengine.dist import all_reduce, broadcast, get_world_size
from torch import Tensor, nn

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
