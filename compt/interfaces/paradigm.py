"""The interface of paradigms, which say what is trained, on what, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from compt.interfaces.buffers import BufferRule
from compt.interfaces.draws import Draws
from compt.interfaces.nested import map_tensors
from compt.interfaces.plugin import Plugin, accepted, may_omit, renamed_method
from compt.interfaces.starter import Starter
from compt.shards import MAX_SHARD as MAX_SHARD
from compt.weights import load_state, load_weights

Batch = Mapping[str, Any]
Outputs = Mapping[str, Tensor]
FOLLOW = "_follow_"
"""Key of a paradigm's config under which a chain puts the path that ``follow`` is to get."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
"""The default of outputs and batches, for who calls a method without them."""


@dataclass(frozen=True)
class Member:
    """One size of the family, with its model as the paradigm reads it (dict, name or path)."""

    name: str
    model: Any


@dataclass(frozen=True)
class Metric:
    """One value measured on a validation split.

    ``higher_is_better`` is None where it is not known, as of mmengine's metrics.
    ``chance`` is what guessing would reach, None where that has no meaning. ``unit`` says what the
    value counts: ``"share"`` of a whole, from 0 to 1, which reads as per cent, ``"nats"``,
    ``"bits/byte"``, ``"count"`` or a name of its own; empty for a plain number.
    """

    value: float
    chance: float | None = None
    higher_is_better: bool | None = True
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the metric as JSON types, as manifests hold it."""
        return asdict(self)


@dataclass(frozen=True)
class ExportFormat:
    """What an exported folder is for, as its model card says it."""

    loaded_by: str = ""
    """Which loads it, under the name that Hugging Face has for it, such as 'open_clip'."""
    usage: str = ""
    """Python code that loads it, in which the folder is ``'FOLDER'``."""
    task: str = ""
    """Hugging Face's name of what it does, such as 'text-generation'."""
    single_file: str = ""
    """Why its weights are one file of any size, '' where large ones are written in shards."""


class Paradigm(Plugin, ABC):
    """Say what is trained, on what, with which loss, and how it is measured and written out.

    Parameters of a model with ``requires_grad=False`` are not trained: they are in no optimizer,
    and plans and reports do not count them.
    """

    renamed_methods = {"teach": "teacher_forward"}

    outputs: frozenset[str]
    """Names that ``forward`` returns."""
    features: tuple[str, ...] = ()
    """The outputs that transferers compare by default, ``[batch, ..., width]`` each."""
    splits: tuple[str, ...] = ("val",)
    """Validation splits, in the order of the report."""
    notes: Sequence[str] = ()
    """What of a followed checkpoint is said otherwise or not taken over, a sentence each."""
    buffer_rules: Mapping[str, BufferRule] = {}
    """How the model's buffers are brought together over several processes, after every step.

    By the name in the model of a buffer, or of a parameter that is not trained, or by a pattern
    with ``*``. ``{"centre": "mean"}`` gives all processes the mean of theirs; further rules are
    ``"max"``, ``"min"`` and ``"first"``, the first process's value. Buffers without a rule are each
    process's own, and checkpoints hold those of the first.
    """
    data_licence: str = ""
    """Licence of the data that is trained on, as its source declares it."""
    sample_index: bool = False
    """Whether batches hold the samples' numbers in their split, as ``batch["index"]``, int64 [B].

    They stay in the batch whatever ``prepare`` makes of the rest. An ``example_batch`` of one's own
    has to hold them too.
    """
    streams_weights: ClassVar[bool] = False
    """Whether large models may be grown without building them, from files to files.

    A paradigm that says so builds the model of a folder from ``Member(name, folder)``, and both
    ``load`` and ``export`` keep the model's own names and values in files of safetensors.
    """

    starter: ClassVar[Starter | None] = None
    """What ``compt init`` writes of this paradigm; without one it writes a frame to fill in.

    A subclass with other models than its base has another one, or None.
    """

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

    def reads_like(self, members: Sequence[Member]) -> Sequence[Member]:
        """Return for each member of a chain the first one that reads the data as it does.

        By default all read it alike. Override it where an option lets members differ in what a
        sample is, such as a tokenizer of their own: a stage's data set is then that of the member
        that its paradigm built first, so that lengths are counted, and data is opened before
        training, once for each way. It is also where names of members in options can be checked.

        Raises:
            ConfigError: an option names a member that is not there.
        """
        return [members[0]] * len(members)

    def build_reference(self, split: str) -> Dataset[Any]:
        """Build a split as what metrics compare with, such as the bank of a kNN classifier.

        Override it where ``build_dataset("train")`` augments: a reference is the samples as they
        are.
        """
        return self.build_dataset(split)

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Put samples of the data set together into one batch of CPU tensors."""
        batch: Batch = default_collate(list(samples))
        return batch

    @may_omit("training", "draws")
    def prepare(
        self,
        batch: Batch,
        *,
        generator: torch.Generator,
        training: bool = True,
        draws: Draws | None = None,
    ) -> Batch:
        """Finish a batch on the training device.

        What is random here is drawn once, for teacher and student.

        Args:
            batch: of ``collate``, on the device.
            generator: to draw from. In training it is another one at each iteration and in each
                process; at each evaluation it begins anew.
            training: whether the batch is trained on, and not measured on.
            draws: to draw from what belongs to a sample, such as its mask: a run then does not
                depend on the number of processes. None stands for ``Draws(generator)``.
        """
        return batch

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Run the model on a prepared batch.

        ``model.training`` tells whether the model is being trained: it is False in evaluations and
        for a teacher.
        """

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run a teacher for at least the outputs in ``needs``.

        Override it where that is cheaper than ``forward``.
        """
        return self.forward(model, batch)

    teach = renamed_method("teach", teacher_forward)

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of the task, scalars by name, whose sum is minimised."""

    @may_omit("batches_of")
    @abstractmethod
    def metrics(
        self,
        model: nn.Module,
        split: str,
        batches: Iterable[Batch],
        *,
        batches_of: Callable[[str], Iterable[Batch]],
    ) -> dict[str, Metric]:
        """Measure the model on the prepared batches of a validation split.

        It is in eval mode, without gradients. The first metric of the first split is the main one
        of the report.

        Args:
            model: the student.
            split: one of ``splits``.
            batches: of that split.
            batches_of: returns the prepared batches of 'train' or another split, in order, as
                ``build_reference`` has them; for example the bank of a kNN classifier.
        """

    @may_omit("max_shard_size")
    @abstractmethod
    def export(self, model: nn.Module, folder: Path, *, max_shard_size: int = MAX_SHARD) -> None:
        """Write the model into an empty folder in the format of its own library.

        Args:
            model: of a member.
            folder: to write into.
            max_shard_size: bytes above which weights are split into several files, where the
                library loads such; ``export_format`` says where it does not.
        """

    def export_format(self, folder: Path) -> ExportFormat:
        """Say of a folder that ``export`` wrote, or of one in it, what loads it.

        Override it, so that model cards say so too.
        """
        return ExportFormat()

    @abstractmethod
    def load(self, path: Path) -> nn.Module:
        """Read a model, with its weights, from what ``export`` or its own library wrote."""

    def recognises(self, path: Path) -> bool:
        """Tell whether ``load`` can read this path."""
        return False

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a member's model, strictly, from a checkpoint that need not say what model it is of.

        Override it to read what else the paradigm's own library writes.

        Args:
            model: to fill.
            path: of a folder or file; of a stage's weights in shards, that of their index, which
                :func:`compt.weights.read_state` reads as one file.

        Raises:
            ConfigError: the file is damaged, or another model's.
        """
        if self.recognises(path):
            load_state(model, self.load(path).state_dict(), path)
        else:
            load_weights(model, path)

    def follow(self, path: Path) -> None:
        """Take over from a checkpoint what is not of its model's size.

        That is how inputs are prepared (pixels, tokenizer), and what an export says beside sizes
        and weights (labels, settings of generation). It is called before anything is built, with
        what a chain's first member starts from or ``compt grow`` grows. The paradigm's own options
        come first. Override it where the library's format holds such things; ``notes`` then says
        what is not taken over.

        Raises:
            ConfigError: what the checkpoint says cannot be followed.
        """

    def weight_dtype(self, path: Path) -> torch.dtype | None:
        """Return the number format of most weights in a checkpoint, None where it is not known.

        ``compt grow`` writes the grown model in it.
        """
        return None

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
        batch = dict(self.collate([dataset[0]] * batch_size))
        if self.sample_index:
            batch["index"] = torch.zeros(batch_size, dtype=torch.long)
        generator = torch.Generator().manual_seed(0)
        training = accepted(self.prepare, training=True)
        prepared = dict(self.prepare(batch, generator=generator, **training))
        if self.sample_index:
            prepared["index"] = batch["index"]
        device = next(model.parameters()).device
        moved: Batch = map_tensors(lambda tensor: tensor.to(device), prepared)
        return moved

    @may_omit("outputs", "batch", "progress")
    def after_step(
        self,
        model: nn.Module,
        *,
        outputs: Outputs = NOTHING,
        batch: Batch = NOTHING,
        progress: float = 1.0,
    ) -> None:
        """Change what the optimizer does not, once after each of its steps.

        CLIP clamps its logit scale here; others move a teacher that is an average of the student,
        or what outputs are centred by. Gradients are off.

        Args:
            model: the student.
            outputs: what ``forward`` returned, without gradients. Where several iterations make one
                step, those of the last.
            batch: what they were computed from.
            progress: how much of the stage is done, above 0 and 1 after its last step.
        """

    def after_growth(self, model: nn.Module) -> None:
        """Set what a grown model must not inherit, such as a queue of features or an average.

        It is called once, after the model's weights were grown and before they are trained.
        """


def asked_after_step(paradigm: Paradigm, outputs: Outputs, batch: Batch) -> dict[str, Any]:
    """Return those of outputs and batch that a paradigm's ``after_step`` asks for.

    No more is kept over the backward pass, as it takes memory. The method of this class does
    nothing, so where it stands it asks for nothing.
    """
    after_step = paradigm.after_step
    if getattr(after_step, "__func__", None) is Paradigm.after_step:
        return {}
    return accepted(after_step, outputs=outputs, batch=batch)
