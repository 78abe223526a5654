"""Let the meta device keep what a GPU keeps: 16 bits under autocast, attention in one kernel.

torch has no autocast for the meta device, and takes attention apart there, into matrices of
[tokens, tokens] that no GPU holds, and dropout into a mask of as many bytes as its input. What is
registered here is in force within a ``with`` alone, and for tensors on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, library as operators
from torch._C import DispatchKey
from torch._ops import OpOverload

aten = torch.ops.aten
LOWERED: tuple[OpOverload, ...] = (
    aten.linear.default,
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.einsum.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
)
"""What autocast computes in 16 bits."""
RAISED: tuple[OpOverload, ...] = (
    aten.softmax.int,
    aten.log_softmax.int,
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.cross_entropy_loss.default,
    aten.nll_loss.default,
)
"""What it computes in float32."""


class WeightCopies:
    """The copies of weights in 16 bits that autocast keeps until the forward pass has ended."""

    def __init__(self) -> None:
        self._by_weight: dict[int, Tensor] | None = {}

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self._by_weight or {}).values())

    def lowered(self, tensor: Tensor) -> Tensor:
        """Return a tensor in 16 bits, a weight's one copy."""
        copies = self._by_weight
        is_trained = tensor.is_leaf and tensor.requires_grad and torch.is_grad_enabled()
        if copies is None or not is_trained:
            return tensor.to(torch.bfloat16)
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.to(torch.bfloat16)
        return copies[id(tensor)]

    def forget(self) -> None:
        """Keep no copies from here on."""
        self._by_weight = None


@contextmanager
def as_on_gpu(*, is_half: bool, is_fused: bool) -> Iterator[WeightCopies]:
    """Compute on the meta device as a GPU does, as far as memory knows.

    Args:
        is_half: whether autocast to 16 bits is on.
        is_fused: whether ``scaled_dot_product_attention`` is one kernel, which keeps its inputs,
            its output and a number for each row.

    Yields:
        The copies of weights in 16 bits.
    """
    copies = WeightCopies()
    with operators._scoped_library("aten", "IMPL") as library:
        if is_half:
            for operator in LOWERED:
                _register(library, operator, lambda t: copies.lowered(t) if _is_wide(t) else t)
            for operator in RAISED:
                _register(library, operator, lambda t: t.float() if t.is_floating_point() else t)
        library.impl("dropout", _dropout, "AutogradMeta")
        if is_fused:
            attend = _attention(copies.lowered if is_half else lambda tensor: tensor)
            library.impl("scaled_dot_product_attention", attend, "AutogradMeta")
        yield copies


def _register(
    library: operators.Library, operator: OpOverload, cast: Callable[[Tensor], Tensor]
) -> None:
    """Let an operator have its tensors cast, and do as it did."""
    key = DispatchKey.CompositeImplicitAutograd
    if not operator.has_kernel_for_dispatch_key(key):
        key = DispatchKey.Autograd

    def run(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: _map(cast, value) for name, value in kwargs.items()}
        return operator._op_dk(key, *(_map(cast, value) for value in args), **kwargs)

    library.impl(operator, run, "AutogradMeta")


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Drop out as kernels of GPUs do, which keep a byte for each number."""
    if train and 0 < p < 1:
        output: Tensor = aten.native_dropout.default(input, p, True)[0]
        return output
    composite = DispatchKey.CompositeImplicitAutograd
    output = aten.dropout.default._op_dk(composite, input, p, train)
    return output


def _attention(cast: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    fused = aten._scaled_dot_product_flash_attention_for_cpu.default
    apart = aten.scaled_dot_product_attention.default

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        tensors = [cast(tensor) if _is_wide(tensor) else tensor for tensor in (query, key, value)]
        if query.ndim == 4:  # [batch, heads, tokens, width], as kernels take it
            options = {"attn_mask": attn_mask, "scale": scale}
            output: Tensor = fused(*tensors, dropout_p, is_causal, **options)[0]
            return output
        options = {"scale": scale, "enable_gqa": enable_gqa}
        composite = DispatchKey.CompositeImplicitAutograd
        output = apart._op_dk(composite, *tensors, attn_mask, dropout_p, is_causal, **options)
        return output

    return attend


def _is_wide(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32


def _map(cast: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return cast(value)
    return [_map(cast, entry) for entry in value] if isinstance(value, (list, tuple)) else value
