"""Find the modules of a model that draw random numbers of torch, as dropout does.

Each process draws its own, not its samples': what such a model is trained to depends on how a
batch is spread over processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def noted_draws(model: nn.Module, *, inside: bool = True) -> Iterator[list[str]]:
    """Yield a list that has, once the model was called, the innermost modules that drew.

    Args:
        model: called in the meantime.
        inside: whether modules may be looked into, as a compiled one may not; else the list has
            the name '' where anything drew.
    """
    device = next(model.parameters()).device
    names: list[str] = []
    entered: list[tuple[Tensor, int]] = []

    def enter(*_: object) -> None:
        entered.append((_state(device), len(names)))

    def leave(name: str) -> None:
        state, num_names = entered.pop()
        if len(names) == num_names and not torch.equal(state, _state(device)):
            names.append(name)

    handles: list[RemovableHandle] = []
    for name, module in model.named_modules() if inside else ():
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(lambda *_, name=name: leave(name)))
    enter()
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()
    leave("")


def _state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()
