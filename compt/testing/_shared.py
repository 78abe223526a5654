"""Helpers of the contracts.

They say how a contract complains, compare tensors and random states, and prepare modules.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from compt.growth.operators import tensors_of
from compt.random_state import random_state, restore_random_state


class Violation(AssertionError):
    """A contract that a plug-in does not keep.

    Args:
        what: what is wrong.
        do: what the plug-in's author should do.
    """

    def __init__(self, what: str, do: str) -> None:
        self.what, self.do = what, do
        super().__init__(f"{what}\n  do: {do}")

    def put_before(self, name: str) -> None:
        """Put the name of the plug-in's class before what is wrong, unless it is in it."""
        if name not in self.what:
            self.what = f"{name}: {self.what}"
            self.args = (f"{self.what}\n  do: {self.do}",)


def require(ok: object, what: str, do: str) -> None:
    """Raise Violation unless ``ok`` is true."""
    __tracebackhide__ = True
    if not ok:
        raise Violation(what, do)


@contextmanager
def must_work(what: str, do: str) -> Iterator[None]:
    """Turn any error within into a Violation that says what does not work, and why."""
    __tracebackhide__ = True
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise Violation(f"{what}: {described(error)}", do) from error


def described(error: BaseException) -> str:
    """Return class and text of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def some(names: Iterable[str], most: int = 4) -> str:
    """Return the first few of many names, quoted."""
    listed = sorted(names)
    rest = f" and {len(listed) - most} more" if listed[most:] else ""
    return ", ".join(f"'{name}'" for name in listed[:most]) + rest


def skip(reason: str) -> NoReturn:
    """Skip the running test."""
    import pytest

    raise pytest.skip.Exception(reason)


# Random numbers


def drawn_since(earlier: Mapping[str, Any]) -> list[str]:
    """Return the libraries whose global random state has changed.

    Args:
        earlier: what :func:`compt.random_state.random_state` returned then.
    """
    now = random_state()
    torch_equal = torch.equal(earlier["torch"], now["torch"])
    numpy_equal = (
        torch.equal(earlier["numpy"][1], now["numpy"][1])
        and earlier["numpy"][2:] == now["numpy"][2:]
    )
    python_equal = earlier["python"] == now["python"]
    equal = {"torch": torch_equal, "numpy": numpy_equal, "random": python_equal}
    return [library for library, unchanged in equal.items() if not unchanged]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put all global random states back afterwards, so that no other test sees a trace."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run under one seed of all global random states, which are put back afterwards."""
    with random_state_kept():
        set_random_seed(seed)
        yield


# Modules and outputs


def randomised(module: nn.Module, *, scale: float = 0.2, seed: int = 0) -> nn.Module:
    """Add noise to every parameter, gains, biases and tokens included.

    Default values hide most bugs: a gain of 1 or a bias of 0 grows well by accident.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in module.parameters():
            noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            param.add_(scale * noise.to(param))
    return module


def on_meta(module: nn.Module) -> nn.Module:
    """Return a copy on the meta device, in which a tensor with two names stays one."""
    named = [*module.parameters(), *module.buffers()]
    bare = {id(tensor): tensor.detach().to("meta") for tensor in named}
    params = {
        id(tensor): nn.Parameter(bare[id(tensor)], tensor.requires_grad)
        for tensor in named
        if isinstance(tensor, nn.Parameter)
    }
    return copy.deepcopy(module, {**bare, **params})


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in tensors_of(module).items()}


def changed(old: Mapping[str, Tensor], new: nn.Module | Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that differ, NaN being equal to NaN."""
    now = tensors_of(new) if isinstance(new, nn.Module) else new
    return [
        name
        for name in {*old, *now}
        if name not in old or name not in now or not same(old[name], now[name])
    ]


def same(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have the same shape, number format and values."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    # torch.equal takes NaN as different from NaN
    return bool(((first == second) | ((first != first) & (second != second))).all())


def traces(module: nn.Module) -> dict[str, Any]:
    """Return what a guest may forget to put back in a module, beside the values of its tensors."""
    return {
        "modes (train and eval)": [m.training for m in module.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "gradients": [None if p.grad is None else p.grad.sum().item() for p in module.parameters()],
        "storage": [t.data_ptr() for t in tensors_of(module).values()],
    }


def is_finite_scalar(value: Any) -> bool:
    """Return whether a value is a tensor of one finite number."""
    return isinstance(value, Tensor) and value.ndim == 0 and bool(torch.isfinite(value))


def without_gradient(
    module: nn.Module, loss: Callable[[], Tensor], *, steps: int = 20, elements: bool = False
) -> list[str]:
    """Return the names of the parameters that no gradient reaches in so many steps.

    What is behind a zeroed matrix is reached one step later, so that one step would not do.

    Args:
        module: what is trained, in place.
        loss: returns the loss of the module, of another batch at every call.
        steps: optimizer steps at most.
        elements: whether to name also the parameters that are only reached in part.
    """
    learning = {name: param for name, param in module.named_parameters() if param.requires_grad}
    reached = {name: torch.zeros_like(param, dtype=torch.bool) for name, param in learning.items()}
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-3)
    dead = list(learning)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        if value.requires_grad:
            value.backward()
        for name, param in learning.items():
            if param.grad is not None:
                reached[name] |= param.grad != 0
        alive = {name: mask.all() if elements else mask.any() for name, mask in reached.items()}
        dead = [name for name in learning if not alive[name]]
        if not dead:
            break
        optimizer.step()
    return dead
