"""Count FLOPs of what runs on the meta device, where every operator needs to run only once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from compt.planning.live import PlanMode
from compt.planning.looks import Outputs, known_looks

PLAIN_TENSORS = (Tensor, nn.Parameter)
"""Types of tensors of which the shape says all; a subclass may hold more."""
CONSTANTS = (
    bool,
    int,
    float,
    complex,
    str,
    type(None),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
"""Types of an operator's other arguments, as far as it depends on no more than their values."""


class FlopCounter(PlanMode):
    """Count FLOPs by torch's own counter, without running an operator twice on the same shapes.

    All that an operator does on the meta device is to work out shapes, for which torch takes up to
    a millisecond; a model repeats the same blocks, and a chain the same teachers. So the second
    outputs are made from what the first looked like, also where that was in an earlier program. One
    counter may count many models.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flops = 0
        self._results: dict[Hashable, _Result] = {}
        self._known = known_looks()

    def count(self, run: Callable[[], Any]) -> tuple[float, Any]:
        """Return the FLOPs of a function, and what it returned."""
        flops_until_now = self._flops
        with self:
            returned = run()
        return float(self._flops - flops_until_now), returned

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):
            return self._taken_apart(func, args, kwargs)
        if func.is_view:  # cheap, without FLOPs, and its output shares memory with its input
            return func(*args, **kwargs)
        if func.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd):
            return self._taken_apart(func, args, kwargs)
        try:
            key = (func, _key(args), _key(tuple(kwargs.items())))
        except TypeError:
            outputs = func(*args, **kwargs)
            self._flops += _flops_of(func, args, kwargs, outputs)
            return outputs
        if (result := self._results.get(key)) is not None:
            self._flops += result.flops
            return result.outputs.made(args)
        if (known := self._known.find(func, key[1:])) is not None:
            outputs = known.made(args)
        else:
            outputs = func(*args, **kwargs)
            known = _described(func, args, key[1], outputs)
            if known is not None:
                self._known.add(func, key[1:], known)
        flops = _flops_of(func, args, kwargs, outputs)
        self._flops += flops
        if known is not None:
            self._results[key] = _Result(flops, known)
        return outputs

    def _taken_apart(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run what is made of other operators under torch's counter, which counts those."""
        with FlopCounterMode(display=False) as counter:
            outputs = func(*args, **kwargs)
        self._flops += counter.get_total_flops()
        return outputs


class _Result(NamedTuple):
    """What an operator costs and returns."""

    flops: int
    outputs: Outputs


def _described(func: OpOverload, args: tuple[Any, ...], key: Any, outputs: Any) -> Outputs | None:
    """Return what an operator's outputs look like, None where it is no use to remember it.

    Args:
        func: the operator.
        args: that it was run with.
        key: that they had before.
        outputs: that it returned.
    """
    if not func._schema.is_mutable:
        return Outputs.of(outputs)
    is_first = bool(args) and outputs is args[0] and _key(args) == key and _writes_one(func)
    return Outputs() if is_first else None


def _flops_of(
    func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any
) -> int:
    """Return what torch's formula for an operator gives."""
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=outputs))


def _writes_one(func: OpOverload) -> bool:
    """Tell whether an operator writes into one of its arguments and no more."""
    return sum(argument.alias_info is not None for argument in func._schema.arguments) == 1


def _key(argument: Any) -> Hashable:
    """Return all of an argument that may decide what an operator's outputs look like.

    Raises:
        TypeError: more of it than can be compared may matter.
    """
    kind = type(argument)
    if kind in PLAIN_TENSORS and argument.is_meta:
        return argument.shape, argument.stride(), argument.dtype
    if kind in CONSTANTS:
        return kind, argument  # 1 == 1.0 == True, and they lead to other number formats
    if isinstance(argument, (tuple, list)):
        return tuple(map(_key, argument))
    raise TypeError(f"An operator's argument is a {kind.__name__}.")
