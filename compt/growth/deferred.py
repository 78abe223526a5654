"""Build a model without its large tensors, and draw each of them when it is asked for.

The library's own constructor runs, with all that it initialises. Of large tensors only the
operations on them are noted, each with the random state that it met, which is then moved on by a
draw that is thrown away. To run the operations of one tensor again gives the bits that the
constructor would have given it, whatever the library, in any order, and needs the memory of that
tensor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from compt.errors import ComptError

LARGE = 2**20
"""Bytes from which on a tensor is deferred; smaller ones are made as ever."""

aten = torch.ops.aten
FACTORIES = frozenset(
    {
        aten.empty.memory_format,
        aten.empty_strided.default,
        aten.zeros.default,
        aten.ones.default,
        aten.full.default,
        aten.rand.default,
        aten.randn.default,
    }
)
"""Operators that make a tensor from sizes alone."""
EMPTY = frozenset({aten.empty.memory_format, aten.empty_strided.default})
"""Those of them that leave in it whatever the memory held."""
OVERWRITING = frozenset(
    {
        aten.normal_.default,
        aten.uniform_.default,
        aten.zero_.default,
        aten.fill_.Scalar,
    }
)
"""Operators after which a tensor holds nothing of what it held before."""


class DeferralError(ComptError):
    """A model's constructor does with a large tensor what cannot be run again later."""


@dataclass(frozen=True)
class _Strided:
    """Where in its storage a tensor lies."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Strided:
        offset = int(tensor.storage_offset())
        return cls(tuple(tensor.shape), tensor.stride(), offset, tensor.dtype)

    def view(self, base: Tensor) -> Tensor:
        return base.as_strided(self.size, self.stride, self.offset)

    @property
    def num_bytes(self) -> int:
        """How much memory a tensor that lies like this one spans."""
        steps = zip(self.size, self.stride, strict=True)
        last = sum((length - 1) * stride for length, stride in steps)
        return (1 + last) * self.dtype.itemsize if 0 not in self.size else 0

    def within(self, memory: Tensor) -> Tensor:
        """Return a tensor that lies like this one in the first bytes of other memory."""
        values = memory[: self.num_bytes].view(self.dtype)
        return values.as_strided(self.size, self.stride)


@dataclass(frozen=True)
class _Operand:
    """A deferred tensor as an operation reads or writes it."""

    place: _Strided
    recipe: _Recipe | None
    """As it was at that time; None for the tensor whose recipe this is part of."""


@dataclass(frozen=True)
class _Step:
    """One operation, with the random state that it met where it draws."""

    run: Callable[..., Any]
    args: Any
    options: Any
    random_state: Tensor | None

    def on(self, base: Tensor | None = None, made: dict[int, Tensor] | None = None) -> Any:
        """Run the operation.

        Args:
            base: the tensor whose recipe this is part of.
            made: what recipes have made, by their ids, which is added to.
        """
        known = {} if made is None else made

        def actual(value: Any) -> Any:
            if not isinstance(value, _Operand):
                return value
            source = base if value.recipe is None else value.recipe.made(known)
            assert source is not None
            return value.place.view(source)

        args, options = tree_map(actual, self.args), tree_map(actual, self.options)
        if self.random_state is None:
            return self.run(*args, **options)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random_state)
            return self.run(*args, **options)


@dataclass(frozen=True)
class _Recipe:
    """All that makes the content of one storage."""

    first: _Step
    """Makes a tensor on a storage of its own."""
    output: int | None = None
    """Which of several results of the first step, None where it has one."""
    others: tuple[_Step, ...] = ()
    """Write into it, in order."""

    def made(self, made: dict[int, Tensor]) -> Tensor:
        """Return a tensor on a new storage with that content, made once.

        Draws that are repeated where they are out of bounds refer to each other many times.
        """
        if id(self) not in made:
            result = self.first.on(made=made)
            base: Tensor = result if self.output is None else result[self.output]
            for step in self.others:
                step.on(base, made)
            made[id(self)] = base
        return made[id(self)]


class Deferral(TorchDispatchMode):
    """Note what is done with large tensors, which are on the meta device, and make them later.

    Within it they seem to be on the CPU: functions that initialise pass meta tensors over.

    Args:
        large: bytes from which on a tensor is deferred.
        draws: whether random values are to be asked for later; without, none are drawn at all.
    """

    def __init__(self, large: int = LARGE, *, draws: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.large, self.draws = large, draws
        self._recipes: dict[int, _Recipe] = {}
        # Kept, as the address of one that is gone may be given to another.
        self._storages: dict[int, torch.UntypedStorage] = {}
        # What draws that are thrown away are written to: new memory each time costs a third.
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._disguise = _Disguise(self)

    def __enter__(self) -> Deferral:
        """Begin to note."""
        self._disguise.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """End to note; values can be asked for from now on."""
        self._scratch = torch.empty(0, dtype=torch.uint8)
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._disguise.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, or note it where it is on a deferred tensor."""
        options = dict(kwargs or {})
        if any(map(self.is_deferred, tree_flatten((args, options))[0])):
            return self._note(func, args, options)
        if func in FACTORIES and str(options.get("device") or "cpu") == "cpu":
            outline = func(*args, **{**options, "device": "meta"})
            if outline.is_floating_point() and outline.nbytes >= self.large:
                self._begin(outline, _Recipe(self._step(func, args, options)))
                return outline
        return func(*args, **options)

    def is_deferred(self, value: Any) -> bool:
        """Return whether a value is a tensor that is made later."""
        return isinstance(value, Tensor) and _address(value) in self._recipes

    def is_empty(self, tensor: Tensor) -> bool:
        """Return whether a deferred tensor was never written, so that it holds anything."""
        if not self.is_deferred(tensor):
            return False
        recipe = self._recipes[_address(tensor)]
        return recipe.first.run in EMPTY and not recipe.others

    def value(self, tensor: Tensor) -> Tensor:
        """Return what a tensor holds once the model is built, as it is unless it is deferred."""
        if not self.is_deferred(tensor):
            return tensor
        base = self._recipes[_address(tensor)].made({})
        return _Strided.of(tensor).view(base)

    def _begin(self, outline: Tensor, recipe: _Recipe) -> None:
        storage = outline.untyped_storage()
        self._storages[storage._cdata], self._recipes[storage._cdata] = storage, recipe

    def _note(self, func: Any, args: Any, options: dict[str, Any]) -> Any:
        """Note an operation on deferred tensors, and return its results on the meta device."""
        if not any(isinstance(output.type, torch.TensorType) for output in func._schema.returns):
            return self._step(func, *tree_map(self._operand, (args, options))).on()
        written = [
            value for value, argument in _by_argument(func, args, options) if _writes(argument)
        ]
        for target in written:
            if not self.is_deferred(target):
                raise DeferralError(f"{func} writes a small tensor from a large one")
            own = tree_map(partial(self._operand, of=target), (args, options))
            self._write(target, func, self._step(func, *own))
        outline = func(*tree_map(_on_meta, args), **_options_on_meta(options))
        if not written:
            self._begin_results(outline, func, args, options)
        return outline

    def _begin_results(self, outline: Any, func: Any, args: Any, options: Any) -> None:
        """Begin a recipe for each result that is no view of a deferred tensor."""
        step = None
        several = isinstance(outline, (tuple, list))
        for index, result in enumerate(outline if several else [outline]):
            if isinstance(result, Tensor) and _address(result) not in self._recipes:
                step = step or self._step(func, *tree_map(self._operand, (args, options)))
                self._begin(result, _Recipe(step, index if several else None))

    def _write(self, target: Tensor, func: Any, step: _Step) -> None:
        """Add a step that writes a tensor to its recipe, alone where it leaves nothing of it."""
        key = _address(target)
        recipe = self._recipes[key]
        whole = target.is_contiguous() and target.nbytes == self._storages[key].nbytes()
        if whole and func in OVERWRITING:
            empty = _Step(torch.empty, (target.numel(),), {"dtype": target.dtype}, None)
            self._recipes[key] = _Recipe(empty, None, (step,))
        else:
            self._recipes[key] = _Recipe(recipe.first, recipe.output, (*recipe.others, step))

    def _operand(self, value: Any, of: Tensor | None = None) -> Any:
        """Return a deferred tensor as a step names it, and any other value as it is now."""
        if not isinstance(value, Tensor):
            return value
        if not self.is_deferred(value):
            return value.clone()
        own = of is not None and _address(value) == _address(of)
        return _Operand(_Strided.of(value), None if own else self._recipes[_address(value)])

    def _step(self, func: Any, args: Any, options: Any) -> _Step:
        """Return an operation to be run later, and move the random state on where it draws."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return _Step(func, args, options, None)
        if options.get("generator") is not None:
            raise DeferralError(f"{func} draws a large tensor from a generator of its own")
        if not self.draws:
            return _Step(_not_drawn, args, options, None)
        state = torch.get_rng_state()
        stand_ins = tree_map(self._stand_in, (args, options))
        func(*stand_ins[0], **stand_ins[1])
        return _Step(func, args, options, state)

    def _stand_in(self, value: Any) -> Any:
        """Return a tensor that lies in memory as a deferred one would, whatever it holds."""
        if not isinstance(value, _Operand):
            return value
        if self._scratch.nbytes < value.place.num_bytes:
            self._scratch = torch.empty(value.place.num_bytes, dtype=torch.uint8)
        return value.place.within(self._scratch)


class _Disguise(TorchFunctionMode):
    """Say of deferred tensors that they are on the CPU."""

    def __init__(self, deferral: Deferral) -> None:
        super().__init__()
        self.deferral = deferral

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer where a tensor is, and call every other function."""
        if func == IS_META and self.deferral.is_deferred(args[0]):
            return False
        if func == DEVICE_OF and self.deferral.is_deferred(args[0]):
            return torch.device("cpu")
        return func(*args, **(kwargs or {}))


DEVICE_OF = Tensor.device.__get__  # type: ignore[attr-defined]
"""Reads ``tensor.device``."""
IS_META = Tensor.is_meta.__get__  # type: ignore[attr-defined]
"""Reads ``tensor.is_meta``."""


def settle_buffers(model: nn.Module, deferral: Deferral) -> None:
    """Make the deferred buffers of a model, which hold what its constructor computes."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = deferral.value(buffer)


def _not_drawn(*args: Any, **options: Any) -> Any:
    raise DeferralError("random values are asked for of a model that was built without")


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _by_argument(func: Any, args: Any, options: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the arguments of a call with what the operator's schema says of each."""
    arguments = func._schema.arguments
    yield from zip(args, arguments, strict=False)
    yield from ((options[each.name], each) for each in arguments if each.name in options)


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _options_on_meta(options: Mapping[str, Any]) -> dict[str, Any]:
    device = {"device": torch.device("meta")} if options.get("device") is not None else {}
    return {**{key: tree_map(_on_meta, value) for key, value in options.items()}, **device}
