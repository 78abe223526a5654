"""Hold a model without its large tensors, and say where what it lacks comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compt.growth.deferred import LARGE, Deferral, settle_buffers
from compt.growth.operators import tensors_of
from compt.growth.stored import NotStreamed, StoredWeights

Read = Callable[[], Tensor]


@dataclass(frozen=True)
class Outline:
    """A model without its large tensors, and what makes those."""

    model: nn.Module
    deferral: Deferral

    @classmethod
    def of(cls, build: Callable[[], nn.Module]) -> Outline:
        """Build the outline of a model with fresh weights.

        Raises:
            NotStreamed: its constructor cannot do without the large tensors.
        """
        outline = cls._of(build, draws=True)
        if any(map(outline.deferral.is_empty, tensors_of(outline.model).values())):
            raise NotStreamed("its constructor leaves tensors that it does not initialise")
        return outline

    @classmethod
    def without_weights(cls, build: Callable[[], nn.Module]) -> Outline:
        """Build the outline of a model whose weights are in files, without drawing any if it can.

        Raises:
            NotStreamed: its constructor cannot do without the large tensors.
        """
        try:
            return cls._of(build, draws=False)
        except NotStreamed:
            # A constructor may look at what it has drawn, as to draw again what is out of bounds.
            return cls._of(build, draws=True)

    @classmethod
    def _of(cls, build: Callable[[], nn.Module], *, draws: bool) -> Outline:
        deferral = Deferral(LARGE, draws=draws)
        try:
            with deferral:
                model = build()
            settle_buffers(model, deferral)
        except Exception as error:  # to build it whole says what is wrong
            reason = f"it cannot be built without its tensors: {type(error).__name__}: {error}"
            raise NotStreamed(reason) from error
        return cls(model, deferral)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers themselves, tied ones under each of their names."""
        params = dict(self.model.named_parameters(remove_duplicate=False))
        return params | dict(self.model.named_buffers(remove_duplicate=False))

    def names_in(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
        """Return the name that each tensor of the state dict has in files, by its id.

        Args:
            shapes: of the tensors in the files.

        Raises:
            NotStreamed: the files hold other tensors, or one of them twice.
        """
        own = self.model.state_dict(keep_vars=True)
        for name, shape in shapes.items():
            if name not in own:
                raise NotStreamed(f"'{name}' of the files is no name of the model's")
            if tuple(own[name].shape) != shape:
                raise NotStreamed(f"'{name}' is {list(shape)} in the files")
        names = {id(own[name]): name for name in shapes}
        if lacking := [name for name, tensor in own.items() if id(tensor) not in names]:
            raise NotStreamed(f"the files lack '{lacking[0]}'")
        if len(names) != len(shapes):
            raise NotStreamed("the files hold one tensor under several names")
        return names

    def readers(self, stored: StoredWeights) -> dict[int, Read]:
        """Return what reads each tensor of the state dict from files, by its id."""
        names = self.names_in(stored.shapes)
        dtypes = {id(tensor): tensor.dtype for tensor in self.tensors.values()}

        def reader(name: str, dtype: torch.dtype) -> Read:
            return lambda: stored[name].to(dtype)

        return {key: reader(name, dtypes[key]) for key, name in names.items()}


class Looked(Mapping[str, Tensor]):
    """Tensors by name, each made as it is looked up."""

    def __init__(self, tensors: Mapping[str, Tensor], make: Callable[[Tensor], Tensor]) -> None:
        self._tensors, self._make = tensors, make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(self._tensors[name]).detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@contextmanager
def placeholders(model: nn.Module, dtype: torch.dtype | None) -> Iterator[int]:
    """Give a model untouched memory in place of what is on the meta device, and all a format.

    Yields the bytes of its tensors.
    """
    made: dict[int, Tensor] = {}
    originals: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (holder, dict(holder))
        for module in model.modules()
        for holder in (module._parameters, module._buffers)
    ]
    for holder, tensors in originals:
        for name, tensor in tensors.items():
            if tensor is not None:
                made.setdefault(id(tensor), _placeholder(tensor, dtype))
                holder[name] = made[id(tensor)]
    try:
        yield sum(tensor.nbytes for tensor in made.values())
    finally:
        for holder, tensors in originals:
            holder.update(tensors)


def _placeholder(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    value = torch.empty(tensor.shape, dtype=kind) if tensor.is_meta else tensor.detach().to(kind)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value
