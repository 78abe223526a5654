"""Follow what is allocated and freed on the meta device, as if it had memory."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Change(NamedTuple):
    """A piece of memory that comes, or goes again."""

    num_bytes: int
    """Below 0 where it goes."""
    piece: int
    """Its number, in the order in which pieces came."""


class PlanMode(TorchDispatchMode):
    """A mode that sees every operator, and is entered without torch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, as torch would import its compiler (1.3 s) to turn it off in here."""
        return False


class LiveBytes(PlanMode):
    """Note every piece of memory that operators allocate while it is entered, and its end.

    Args:
        others: tensors that are there already, which are not noted.
    """

    def __init__(self, others: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changes: list[Change] = []
        self._pieces: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._summands: dict[int, int] = {}
        """The piece of the first summand, by that of the sum."""
        self._others = {tensor.untyped_storage()._cdata: tensor for tensor in others}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
            if isinstance(output, Tensor):
                self._note(output)
        if func is torch.ops.aten.add.Tensor:
            self._note_sum(args[0], outputs)
        return outputs

    def _note_sum(self, first: Any, total: Tensor) -> None:
        if not isinstance(first, Tensor) or first.shape != total.shape:
            return
        for piece, summand in zip(self.pieces([total]), self.pieces([first]), strict=False):
            self._summands[piece] = summand

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, num_bytes, piece = storage._cdata, storage.nbytes(), len(self.changes)
        if key in self._pieces or key in self._others:
            return

        def gone(_: Any) -> None:
            del self._pieces[key]
            self.changes.append(Change(-num_bytes, piece))

        self._pieces[key] = weakref.ref(storage, gone), piece
        self.changes.append(Change(num_bytes, piece))

    @property
    def num_bytes(self) -> int:
        """What is allocated now."""
        return sum(change.num_bytes for change in self.changes)

    def added_in_place(self, sums: Collection[int]) -> list[Change]:
        """Return the changes as they are where some sums take the place of their first summands.

        Where a weight is used several times, autograd adds up its gradients in place, but not
        while a mode is entered.

        Args:
            sums: numbers of pieces, of which others than sums stay as they are.
        """
        totals: dict[int, int] = {}
        for total in sums:
            piece = total
            while piece in self._summands:
                piece = self._summands[piece]
                totals[piece] = total
        changes = []
        for num_bytes, piece in self.changes:
            is_sum = piece in self._summands and (piece in totals or piece in sums)
            if is_sum if num_bytes > 0 else piece in totals:
                continue  # it comes with its first summand, which goes with it
            changes.append(Change(num_bytes, totals.get(piece, piece)))
        return changes

    def pieces(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        """Return the numbers of the pieces that tensors are in, of those that are noted."""
        keys = {tensor.untyped_storage()._cdata for tensor in tensors}
        return frozenset(self._pieces[key][1] for key in keys if key in self._pieces)
