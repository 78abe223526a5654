"""What makes training cheaper without changing what is trained; works for every paradigm that has
layouts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from compt.growth.axes import describe

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
ATTENTIONS = {
    "auto": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True)
class Performance:
    """The performance options of one stage.

    ``precision`` 'bf16' runs student, teacher and losses under autocast; weights and optimizer stay
    float32. ``attention`` is the kernel that scaled_dot_product_attention takes; 'auto' lets torch
    choose. ``grad_checkpointing`` recomputes each block's activations in the backward pass.
    ``compile`` is True, or options of torch.compile.
    """

    precision: str = "fp32"
    attention: str = "auto"
    grad_checkpointing: bool = False
    compile: bool | Mapping[str, Any] = False

    @contextmanager
    def context(self, device: str) -> Iterator[None]:
        """Autocast and the attention kernel, on a type of device; what is not switched stays as it
        is.
        """
        with _autocast(device, PRECISIONS[self.precision]), _kernel(ATTENTIONS[self.attention]):
            yield

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function through torch.compile, where it is on."""
        if self.compile is False:
            return function
        return torch.compile(
            function, **(self.compile if isinstance(self.compile, Mapping) else {})
        )

    def check(self, device: str) -> None:
        """Try the attention kernel and the compiler's options, whatever they raise, on a type of
        device.
        """
        self.compiled(abs)
        if ATTENTIONS[self.attention] is not None:
            heads = torch.zeros(1, 1, 16, 64, device=device)
            with self.context(device):
                F.scaled_dot_product_attention(heads, heads, heads)

    def prepare(self, model: nn.Module) -> None:
        """Get ready to train a model: its blocks recompute their activations, and compile as if it
        were the first.
        """
        if self.grad_checkpointing:
            for scope in describe(model).depths:
                for block in model.get_submodule(scope).children():
                    forward = _recomputed(type(block).forward, ATTENTIONS[self.attention])
                    block.forward = MethodType(
                        forward, block
                    )  # a method: copies of the model have their own
        if self.compile is not False:
            torch.compiler.reset()  # torch compiles a function for eight models, then no more


def _autocast(device: str, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def _kernel(kernel: SDPBackend | None) -> AbstractContextManager[None]:
    return nullcontext() if kernel is None else sdpa_kernel(kernel)


def _recomputed(forward: Callable[..., Any], kernel: SDPBackend | None) -> Callable[..., Any]:
    """A block's forward that keeps only its input for the backward pass, which knows of no
    attention kernel.
    """

    def within(*args: Any, **kwargs: Any) -> Any:
        with _kernel(kernel):
            return forward(*args, **kwargs)

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(within, *args, use_reentrant=False, **kwargs)

    return run
