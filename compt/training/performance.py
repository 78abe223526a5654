"""What makes training cheaper without changing what is trained.

It works for every paradigm that has layouts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from compt.config.options import PerformanceOptions
from compt.growth.axes import describe
from compt.interfaces import Outputs
from compt.interfaces.mini_batches import Forward, in_mini_batches, refuse_batch_statistics

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
AUTOCAST = {torch.bfloat16: "bf16", torch.float16: "fp16"}
ATTENTIONS = {
    "auto": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


class Performance(PerformanceOptions):
    """The performance options of one stage, at work.

    Weights and optimizer stay float32 under every precision.
    """

    @contextmanager
    def context(self, device: str) -> Iterator[None]:
        """Enter autocast and the attention kernel, on a type of device.

        Where an option is at its default nothing is entered: autocast from outside, as by
        mmengine's AmpOptimWrapper, stays as it is.
        """
        with _autocast(device, PRECISIONS[self.precision]), _kernel(ATTENTIONS[self.attention]):
            yield

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function through torch.compile, where that is on."""
        if self.compile is False:
            return function
        options = self.compile if isinstance(self.compile, Mapping) else {}
        return torch.compile(function, **options)

    def divided(self, forward: Forward) -> Forward:
        """Return a paradigm's forward that runs a mini-batch at a time, where that is asked for."""
        if self.mini_batch_size is None:
            return forward
        kernel = ATTENTIONS[self.attention]

        def with_kernel(*arguments: Any) -> Outputs:
            # As in _recomputed: the backward pass runs outside of the stage's context.
            with _kernel(kernel):
                return forward(*arguments)

        return in_mini_batches(with_kernel, self.mini_batch_size)

    def try_on(self, device: str) -> None:
        """Try the compiler's options and the attention kernel on a type of device.

        Raises:
            Exception: whatever torch raises of them.
        """
        self.compiled(abs)
        if ATTENTIONS[self.attention] is not None:
            heads = torch.zeros(1, 1, 16, 64, device=device)
            with self.context(device):
                F.scaled_dot_product_attention(heads, heads, heads)

    def prepare(self, model: nn.Module) -> None:
        """Let a model's blocks recompute their activations, and the compiler begin anew.

        Raises:
            ConfigError: the model cannot be run in mini-batches.
        """
        if self.mini_batch_size is not None:
            refuse_batch_statistics(model)
        if self.grad_checkpointing:
            for block in blocks(model).values():
                forward = _recomputed(type(block).forward, ATTENTIONS[self.attention])
                # A method, not a closure over the block: a deep copy of the model, as an average
                # of weights keeps one, then runs its own blocks.
                block.forward = MethodType(forward, block)
        if self.compile is not False:
            # torch compiles a function for eight models, then no more: the ninth member of a
            # chain would run uncompiled.
            torch.compiler.reset()


def number_format(precision: str, wrapper: OptimWrapper) -> str:
    """Name the number format in which a stage multiplies matrices.

    'bf16' or 'fp16' under autocast, else 'fp32', or 'tf32' where a GPU may round to that.

    Args:
        precision: as the stage's performance options say.
        wrapper: of the stage's optimizer, which may enter autocast.
    """
    if isinstance(wrapper, AmpOptimWrapper):
        dtype = wrapper.cast_dtype or torch.get_autocast_dtype(get_device())
        precision = AUTOCAST.get(dtype, "fp32")
    is_rounded = torch.cuda.is_available() and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if precision == "fp32" and is_rounded else precision


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of a model by name, as its layout knows its stacks of them."""
    stacks = {scope: model.get_submodule(scope) for scope in describe(model).depths}
    return {
        f"{scope}.{name}": block
        for scope, stack in stacks.items()
        for name, block in stack.named_children()
    }


def _autocast(device: str, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def _kernel(kernel: SDPBackend | None) -> AbstractContextManager[None]:
    return nullcontext() if kernel is None else sdpa_kernel(kernel)


def _recomputed(forward: Callable[..., Any], kernel: SDPBackend | None) -> Callable[..., Any]:
    """Return a block's forward that keeps only its input for the backward pass."""

    def with_kernel(*args: Any, **kwargs: Any) -> Any:
        # The backward pass runs outside of the stage's context. checkpoint() enters autocast
        # again, but knows of no attention kernel.
        with _kernel(kernel):
            return forward(*args, **kwargs)

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(with_kernel, *args, use_reentrant=False, **kwargs)

    return run
