"""The interface of paradigms, which say what is trained, on what, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from compt.interfaces.plugin import Plugin, renamed_method
from compt.weights import load_state, load_weights

Batch = Mapping[str, Any]
Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One size of the family, with its model as the paradigm reads it (dict, name or path)."""

    name: str
    model: Any


@dataclass(frozen=True)
class Metric:
    """One value measured on a validation split.

    ``chance`` is what guessing would reach, None where that has no meaning. ``unit`` says what the
    value counts: ``"share"`` of a whole, from 0 to 1, which reads as per cent, ``"nats"``,
    ``"bits/byte"``, ``"count"`` or a name of its own; empty for a plain number.
    """

    value: float
    chance: float | None = None
    higher_is_better: bool = True
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the metric as JSON types, as manifests hold it."""
        return asdict(self)


class Paradigm(Plugin, ABC):
    """Say what is trained, on what, with which loss, and how it is measured and written out."""

    renamed_methods = {"teach": "teacher_forward"}

    outputs: frozenset[str]
    """Names that ``forward`` returns."""
    features: tuple[str, ...] = ()
    """The outputs that transferers compare by default, ``[batch, ..., width]`` each."""
    splits: tuple[str, ...] = ("val",)
    """Validation splits, in the order of the report."""

    @abstractmethod
    def build_model(self, member: Member) -> nn.Module:
        """Build the member's model with fresh weights, also under ``torch.device('meta')``."""

    @abstractmethod
    def build_dataset(self, split: str) -> Dataset[Any]:
        """Build the map-style data set of 'train' or of one of ``splits``.

        Where a data set puts others in the place of samples it cannot read, it counts them in
        ``broken_count``, which the stage reports.

        Raises:
            DataError: it is missing.
        """

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Put samples of the data set together into one batch of CPU tensors."""
        batch: Batch = default_collate(list(samples))
        return batch

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Finish a batch on the training device.

        What is random here is drawn once, for teacher and student.
        """
        return batch

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Run the model on a prepared batch."""

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run a teacher for at least the outputs in ``needs``.

        Override it where that is cheaper than ``forward``.
        """
        return self.forward(model, batch)

    teach = renamed_method("teach", teacher_forward)

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of the task, scalars by name, whose sum is minimised."""

    @abstractmethod
    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure the model on the prepared batches of a validation split.

        It is in eval mode, without gradients. The first metric of the first split is the main one
        of the report.
        """

    @abstractmethod
    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the model into an empty folder in the format of its own library."""

    @abstractmethod
    def load(self, path: Path) -> nn.Module:
        """Read a model, with its weights, from what ``export`` or its own library wrote."""

    def recognises(self, path: Path) -> bool:
        """Tell whether ``load`` can read this path."""
        return False

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a member's model, strictly, from a checkpoint that need not say what model it is of.

        Override it to read what else the paradigm's own library writes.

        Raises:
            ConfigError: the file is damaged, or another model's.
        """
        if self.recognises(path):
            load_state(model, self.load(path).state_dict(), path)
        else:
            load_weights(model, path)

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split.

        Override it to answer without building the data set.
        """
        return len(self.build_dataset(split))  # type: ignore[arg-type]

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return a prepared batch of the right shapes on the model's device, meta included.

        Its values do not matter.
        """
        dataset = self.build_dataset("train")
        batch = self.collate([dataset[0]] * batch_size)
        device = next(model.parameters()).device
        prepared = self.prepare(batch, generator=torch.Generator().manual_seed(0))
        return {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in prepared.items()
        }

    def after_step(self, model: nn.Module) -> None:
        """Keep parameters in their range after an optimizer step (CLIP clamps its logit scale)."""
