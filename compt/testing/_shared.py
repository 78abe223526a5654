"""What the contracts share: how they complain, what they compare, and the modules that they compare
it on.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from compt.growth.operators import tensors_of
from compt.random_state import random_state, restore_random_state


class Violation(AssertionError):
    """A contract that a plug-in does not keep: what is wrong, and what its author should do."""

    def __init__(self, what: str, do: str) -> None:
        self.what, self.do = what, do
        super().__init__(f"{what}\n  do: {do}")


def require(ok: object, what: str, do: str) -> None:
    """Raise Violation unless something holds."""
    __tracebackhide__ = True
    if not ok:
        raise Violation(what, do)


@contextmanager
def must_work(what: str, do: str) -> Iterator[None]:
    """Turn any error within into a Violation that says what does not work, why, and what to do."""
    __tracebackhide__ = True
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise Violation(f"{what}: {described(error)}", do) from error


def described(error: BaseException) -> str:
    """Class and text of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def some(names: Iterable[str], most: int = 4) -> str:
    """The first few of many names."""
    listed = sorted(names)
    return ", ".join(f"'{n}'" for n in listed[:most]) + (
        f" and {len(listed) - most} more" if listed[most:] else ""
    )


def skip(reason: str) -> NoReturn:
    """Skip the running test."""
    import pytest

    raise pytest.skip.Exception(reason)


def require_signatures(plugin: Any, base: type) -> None:
    """Every method of the interface can be called as the core calls it."""
    for name, method in vars(base).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        wanted = list(inspect.signature(method).parameters.values())[1:]
        given = [p for p in wanted if p.kind is not p.KEYWORD_ONLY]
        named = {p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(getattr(plugin, name)).bind(*given, **named)
        except TypeError as error:
            raise Violation(
                f"{type(plugin).__name__}.{name}() does not take what the core gives it: {error}.",
                f"Define it with the arguments of compt.{base.__name__}: def {name}{inspect.signature(method)}.",
            ) from error


# Random numbers


def drawn_since(before: Mapping[str, Any]) -> list[str]:
    """The libraries whose global random state (:func:`compt.random_state.random_state`) is no
    longer the same.
    """
    now = random_state()
    torch_kept = torch.equal(before["torch"], now["torch"])
    numpy_kept = (
        torch.equal(before["numpy"][1], now["numpy"][1]) and before["numpy"][2:] == now["numpy"][2:]
    )
    kept = {"torch": torch_kept, "numpy": numpy_kept, "random": before["python"] == now["python"]}
    return [library for library, same_state in kept.items() if not same_state]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put all global random states back afterwards: contracts leave no trace in other tests."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run under one seed of all global random states; they are as before afterwards."""
    with random_state_kept():
        set_random_seed(seed)
        yield


# Modules and outputs


def randomised(module: nn.Module, *, scale: float = 0.2, seed: int = 0) -> nn.Module:
    """Add noise to every parameter, gains, biases and tokens included: default values hide most
    bugs.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in module.parameters():
            param.add_(
                scale * torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param)
            )
    return module


def on_meta(module: nn.Module) -> nn.Module:
    """A copy on the meta device; a tensor with two names stays one."""
    named = [*module.parameters(), *module.buffers()]
    bare = {id(t): t.detach().to("meta") for t in named}
    memo = {
        id(t): nn.Parameter(bare[id(t)], t.requires_grad)
        for t in named
        if isinstance(t, nn.Parameter)
    }
    return copy.deepcopy(module, {**bare, **memo})


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in tensors_of(module).items()}


def changed(before: Mapping[str, Tensor], after: nn.Module | Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that differ, NaN being equal to NaN."""
    now = tensors_of(after) if isinstance(after, nn.Module) else after
    return [
        n for n in {*before, *now} if n not in before or n not in now or not same(before[n], now[n])
    ]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, number format and values."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def traces(module: nn.Module) -> dict[str, Any]:
    """What a guest may forget to put back in a module: modes, gradients, hooks, and which tensors
    learn.
    """
    return {
        "modes (train and eval)": [m.training for m in module.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "gradients": [None if p.grad is None else p.grad.sum().item() for p in module.parameters()],
        "storage": [t.data_ptr() for t in tensors_of(module).values()],
    }


def is_finite_scalar(value: Any) -> bool:
    """Whether something is a tensor of one finite number."""
    return isinstance(value, Tensor) and value.ndim == 0 and bool(torch.isfinite(value))


def without_gradient(
    module: nn.Module, loss: Callable[[], Tensor], *, steps: int = 4, elements: bool = False
) -> list[str]:
    """Names of the parameters that no gradient reaches in so many steps, each with another
    ``loss()``.

    What is behind a zeroed matrix is reached one step later. With ``elements``, also names of those
    that are only reached in part.
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
        dead = [
            name
            for name, found in reached.items()
            if not (found.all() if elements else found.any())
        ]
        if not dead:
            break
        optimizer.step()
    return dead
