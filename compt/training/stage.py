"""All that mmengine trains in one stage, as one model."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import Dataset

from compt.config.teachers import TeacherOptions
from compt.errors import some
from compt.files import sha256
from compt.growth.axes import evaluating
from compt.growth.models import architecture, build_member, build_paradigm
from compt.interfaces import (
    Architecture,
    Batch,
    Draws,
    Member,
    Outputs,
    Transferer,
    accepted,
    asked_after_step,
    fingerprint,
    map_tensors,
    ruled_buffers,
)
from compt.registry import LAYOUTS, TRANSFERERS
from compt.registry.entry_points import object_path
from compt.training.buffers import differing, unite
from compt.training.distributed import mean_over_processes
from compt.training.drawn import noted_draws
from compt.training.frozen import FrozenParams
from compt.training.loader import Collate, step_seed
from compt.training.numbered import INDEX, NumberedCollate, NumberedDataset
from compt.training.performance import Performance
from compt.training.sharding import Held, gather_into, gathered
from compt.training.teacher import Teacher
from compt.weights import load_weights

T = TypeVar("T")
SMALLEST_TOTAL = 1e-12
"""Below it the sum of transfer terms counts as this much, and is not divided by."""


@MODELS.register_module(name="ComptStageModel")
class StageModel(BaseModel):
    """The student, its frozen teacher, the paradigm's loss and the transfer losses.

    The teacher is in eval mode, gets no gradients, and is in no state dict. Projection heads
    of the transferer are trained and checkpointed with the student.

    Args:
        paradigm: config of the paradigm.
        member: ``dict(name=..., model=...)`` of the student.
        init: file with the weights to start from (the grown ones); None starts from fresh
            weights.
        teacher: ``dict(name=..., model=..., weights=..., options=dict(...))``, the last as
            :class:`compt.config.teachers.TeacherOptions`; None trains without one.
        transfer: config of the transferer.
        performance: options of :class:`~compt.training.performance.Performance`.
        layouts: which layout describes a class of modules, where several packages have one.
        seed: of fresh weights and of what :meth:`Paradigm.prepare` draws.
        data_preprocessor: config of mmengine's data preprocessor, None for its default.
        frozen: ``dict(params=[...], until=iteration)``: names of the student's parameters that are
            not trained, and where it is not for all of the stage, until when.
    """

    def __init__(
        self,
        paradigm: Mapping[str, Any],
        member: Mapping[str, Any],
        *,
        init: str | None = None,
        teacher: Mapping[str, Any] | None = None,
        transfer: Mapping[str, Any] | None = None,
        performance: Mapping[str, Any] | None = None,
        layouts: Mapping[str, str] | None = None,
        seed: int = 0,
        data_preprocessor: Mapping[str, Any] | None = None,
        frozen: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.paradigm = build_paradigm(paradigm)
        self.seed, self.iteration, self.max_iters = seed, 0, 1
        self._layouts = dict(layouts or {})
        self._member = Member(member["name"], member["model"])
        self.student = build_member(self.paradigm, self._member, seed=seed)
        if init is not None:
            load_weights(self.student, Path(init))
        self._student_rules = ruled_buffers(
            self.paradigm.buffer_rules, self.student, type(self.paradigm).__name__
        )
        self.frozen = FrozenParams(**(frozen or {}))
        self.frozen.begin(self.student)
        self._last: tuple[Outputs, Batch] = {}, {}
        self._warned = self._has_run = False
        self.performance = Performance(**(performance or {}))
        with self.layouts():
            self.performance.prepare(self.student)
        compiled, divided = self.performance.compiled, self.performance.divided
        self._student_forward = divided(compiled(self.paradigm.forward))
        self.teacher: Teacher | None = None
        self.transfer: Transferer | None = None
        self._configs = {"paradigm": paradigm, "teacher": teacher}
        if teacher is not None and transfer is not None:
            with self.layouts():
                self._add_teacher(teacher, transfer)

    def _add_teacher(self, teacher: Mapping[str, Any], transfer: Mapping[str, Any]) -> None:
        transferer: Transferer = TRANSFERERS.build(dict(transfer))
        member = Member(teacher["name"], teacher["model"])
        model = build_member(self.paradigm, member, seed=self.seed)
        load_weights(model, Path(teacher["weights"]))
        self.teacher = Teacher(
            model.eval().requires_grad_(False),
            self.paradigm.teacher_forward,
            TeacherOptions(**teacher.get("options", {})),
            self.performance,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            transferer.bind(self._architecture(model), self._architecture(self.student))
        self.transfer = transferer
        self._transfer_rules = ruled_buffers(
            transferer.buffer_rules, transferer, type(transferer).__name__
        )

    def _architecture(self, model: nn.Module) -> Architecture:
        with torch.no_grad(), evaluating(model):
            batch = self.paradigm.example_batch(model, 2)
            return architecture(self.paradigm, model, self.paradigm.forward(model, batch))

    def layouts(self) -> AbstractContextManager[None]:
        """Return what chooses the layouts of the stage's models."""
        return LAYOUTS.choosing(self._layouts)

    def teachers(self) -> list[nn.Module]:
        """Return the frozen teacher, nothing where there is none."""
        return [] if self.teacher is None else [self.teacher.model]

    def hold(self, teacher: Held) -> None:
        """Run the teacher through what holds it, as it is sharded."""
        assert self.teacher is not None
        self.teacher.model = teacher

    def open_cache(self, dataset: Dataset[Any]) -> None:
        """Keep what the teacher says of these samples, where the stage's options want it."""
        if self.teacher is None or not self.teacher.options.cache:
            return
        config = self._configs["teacher"]
        assert self.transfer is not None and config is not None
        self.teacher.open_cache(
            {
                "weights": sha256(Path(config["weights"])),
                "model": config["model"],
                "paradigm": self._configs["paradigm"],
                "code": object_path(type(self.paradigm)),
                "data": fingerprint(dataset),
                "outputs": sorted(self.transfer.needs),
                "precision": self.teacher.precision,
            },
            len(dataset),  # type: ignore[arg-type]
        )

    def begin(self, iteration: int, max_iters: int, batch: Any) -> None:
        """Note the iteration that comes, and its batch before it goes to the device."""
        self.iteration, self.max_iters = iteration, max_iters
        if self.teacher is not None and self.teacher.cache is not None:
            self.teacher.numbers = batch[INDEX]

    def ruled_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the processes bring together by a rule."""
        owners: list[tuple[nn.Module, Mapping[str, Any]]] = [(self.student, self._student_rules)]
        if self.transfer is not None:
            owners.append((self.transfer, self._transfer_rules))
        for module, rules in owners:
            yield from (param for name, param in module.named_parameters() if name in rules)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Sum up sharded gradients in each process, as while they are accumulated."""
        if not isinstance(self, FSDPModule):
            yield
            return
        self.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.set_requires_gradient_sync(True)

    def within(self, function: Callable[[], T]) -> T:
        """Return what a function returns, which runs the student and does not train it.

        It may call any method of the student, whose weights are gathered meanwhile.
        """
        if not isinstance(self, FSDPModule):
            return function()
        try:
            result: T = self(mode="within", function=function)
            return result
        finally:
            for module in self.modules():  # blocks too, which may stay gathered
                if isinstance(module, FSDPModule):
                    module.reshard()

    def whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return tensors as they are, or gathered in the first process where they are sharded.

        Every process has to call it.
        """
        return gathered(tensors) if isinstance(self, FSDPModule) else tensors

    def whole_student(self) -> nn.Module | None:
        """Return the student, or where it is sharded a whole copy of it in the first process.

        Every process has to call it; the others return None.
        """
        if not isinstance(self, FSDPModule):
            return self.student
        copied = None
        if is_main_process():
            copied = build_member(self.paradigm, self._member, seed=self.seed)
        gather_into(copied, self.student)
        return copied

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> StageModel:
        """Move the teacher along with the student.

        ``to``, ``cuda``, ``half`` and the like all come here, and visit submodules only.
        """
        for module in self.teachers():
            module._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> StageModel:
        """Copy what is trained, as averages of weights do; teacher and paradigm are shared.

        A paradigm may hold open files, and the teacher does not change.
        """
        memo |= {id(shared): shared for shared in (self.paradigm, self.teacher)}
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def init_weights(self) -> None:
        """Do nothing, where the Runner would let the student initialise itself again."""

    @property
    def progress(self) -> float:
        """How far the stage is, 0 to 1."""
        return self.iteration / self.max_iters

    def generator(self) -> torch.Generator:
        """Return the random numbers of this iteration.

        They are the same after a resume, and other ones in each process.
        """
        # A paradigm that takes draws too gets other numbers from here than from those.
        return self._seeded(get_rank() + self._takes_draws)

    def draws(self) -> Draws:
        """Return the random numbers of this iteration's samples, alike in every process."""
        return Draws(self._seeded(0), get_rank(), get_world_size())

    @property
    def _takes_draws(self) -> bool:
        return "draws" in accepted(self.paradigm.prepare, draws=None)

    def _seeded(self, number: int) -> torch.Generator:
        device = next(self.student.parameters()).device
        return torch.Generator(device).manual_seed(step_seed(self.seed, self.iteration, number))

    def context(self) -> AbstractContextManager[None]:
        """Return what precision and attention kernel put around the models' calls."""
        return self.performance.context(next(self.student.parameters()).device.type)

    def forward(self, mode: str = "tensor", **batch: Any) -> Any:
        """Return the paradigm's outputs, or in mode 'loss' the losses.

        Of the losses ``loss`` is what to minimise; the rest is for logs. In mode 'within' it
        returns what ``function`` returns, see :meth:`within`.
        """
        if mode == "within":
            return batch["function"]()
        generator = self.generator()
        draws = self.draws() if self._takes_draws else None
        prepared = self.prepare(batch, generator, training=self.training, draws=draws)
        with self.context():
            outputs = self._outputs(prepared)
            self._remember(outputs, prepared)
            return self._losses(outputs, prepared) if mode == "loss" else outputs

    def _outputs(self, prepared: Batch) -> Outputs:
        """Run the student, and in the first step of several processes say what in it draws."""
        if self._has_run or not self.training or get_world_size() == 1:
            return self._student_forward(self.student, prepared)
        self._has_run = True
        with noted_draws(self.student, inside=self.performance.compile is False) as names:
            outputs = self._student_forward(self.student, prepared)
        if names and is_main_process():
            modules = some([name or "anywhere" for name in names])
            warnings.warn(
                f"The model draws random numbers (in {modules}), as dropout does: alike in every "
                "process and not by sample, so that what is trained depends on how a batch is "
                f"spread over {get_world_size()} processes. Without dropout it does not.",
                stacklevel=2,
            )
        return outputs

    def prepare(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        training: bool,
        draws: Draws | None = None,
    ) -> Batch:
        """Return the batch as the paradigm prepares it, with the samples' numbers if it has them.

        A paradigm that did not ask for the numbers does not see them.
        """
        batch = dict(batch)
        numbers = {INDEX: batch[INDEX]} if self.has_numbers else {}
        if self._is_numbered and not self.paradigm.sample_index:
            del batch[INDEX]
        draws = draws or Draws(generator)
        arguments = accepted(self.paradigm.prepare, training=training, draws=draws)
        prepared = self.paradigm.prepare(batch, generator=generator, **arguments)
        return {**prepared, **numbers} if numbers else prepared

    @property
    def has_numbers(self) -> bool:
        """Whether batches hold the number of each sample."""
        return self.paradigm.sample_index or bool(self.transfer and self.transfer.sample_index)

    @property
    def _is_numbered(self) -> bool:
        """Whether loaders number the samples, for a cache of the teacher's outputs too."""
        return self.has_numbers or bool(self.teacher and self.teacher.cache)

    def samples(self, dataset: Dataset[Any]) -> tuple[Dataset[Any], Collate]:
        """Return a data set and the function that makes batches of it, for a loader."""
        collate = self.paradigm.collate
        if not self._is_numbered:
            return dataset, collate
        return NumberedDataset(dataset), NumberedCollate(collate)

    def _remember(self, outputs: Outputs, batch: Batch) -> None:
        """Keep what ``after_step`` asks for, and no more, as it takes memory."""
        asked = asked_after_step(self.paradigm, outputs, batch)
        plain = map_tensors(Tensor.detach, asked.get("outputs", {}))
        self._last = plain, asked.get("batch", {})

    @torch.no_grad()
    def after_step(self) -> None:
        """Do what is due after a step of the optimizer, before anything looks at the student."""
        (outputs, batch), self._last = self._last, ({}, {})
        progress = (self.iteration + 1) / self.max_iters
        arguments = {"outputs": outputs, "batch": batch, "progress": progress}
        after_step = self.paradigm.after_step
        after_step(self.student, **accepted(after_step, **arguments))
        unite(self.student, self._student_rules)
        if self.transfer is not None:
            unite(self.transfer, self._transfer_rules)

    def _losses(self, outputs: Outputs, prepared: Batch) -> dict[str, Tensor]:
        terms = self.paradigm.loss(outputs, prepared)
        task = sum(terms.values(), start=torch.zeros((), device=next(iter(terms.values())).device))
        losses = {"loss": task, **{f"task/{name}": term.detach() for name, term in terms.items()}}
        if strength := self._strength():
            transfer_terms = self._transfer_loss(outputs, prepared, strength, task.detach())
            losses["loss"] = task + sum(transfer_terms.values())
            losses |= {f"transfer/{name}": term.detach() for name, term in transfer_terms.items()}
        elif self.transfer:
            # DistributedDataParallel waits for a gradient of every parameter, of the
            # projection heads too once the transfer is over.
            heads = [p for p in self.transfer.parameters() if p.requires_grad]
            losses["loss"] = task + sum(0.0 * p.sum() for p in heads)
        return losses

    def _strength(self) -> float:
        """Return the transfer's weight at this iteration, 0 where the teacher is not run."""
        if self.transfer is None or self.teacher is None:
            return 0.0
        is_due = self.teacher.is_due(self.iteration)
        return self.transfer.strength(self.progress) if is_due else 0.0

    def judged(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the loss that is comparable with that of the iteration before.

        That is the task's alone where only some iterations have a transfer term.
        """
        if self.teacher is None or self.teacher.options.every == 1:
            return losses["loss"]
        terms = [term for name, term in losses.items() if name.startswith("transfer/")]
        return losses["loss"] - sum(terms)

    def _transfer_loss(
        self, outputs: Outputs, batch: Mapping[str, Any], strength: float, task: Tensor
    ) -> dict[str, Tensor]:
        """Run the teacher, weigh its terms, and hold their sum below the transferer's limit."""
        assert self.transfer is not None and self.teacher is not None
        targets = self.teacher.outputs(batch, self.transfer.needs)
        arguments = accepted(self.transfer.forward, batch=batch)
        terms = self.transfer(outputs, targets, progress=self.progress, **arguments)
        terms = {name: strength * term for name, term in terms.items()}
        if self.transfer.limit is not None and terms:
            total = sum(terms.values(), start=torch.zeros_like(task)).detach()
            # Of the global batch: what each process alone would allow depends on their number.
            total, whole_task = mean_over_processes({"total": total, "task": task}).values()
            total, limit = total.abs(), self.transfer.limit * whole_task.abs()
            factor = (limit / total.clamp_min(SMALLEST_TOTAL)).clamp(max=1.0)
            terms = {name: factor * term for name, term in terms.items()}
        return terms

    def warn_of_differences(self) -> None:
        """Warn once of buffers that several processes do not agree on; every process calls it."""
        if self._warned:
            return
        names = differing(self.student, self._student_rules)
        if self.transfer is not None:
            of_transfer = differing(self.transfer, self._transfer_rules)
            names += [f"transfer.{name}" for name in of_transfer]
        self._warned = bool(names)
        if names and is_main_process():
            warnings.warn(
                f"{len(names)} of the buffers are not the same in all processes ({some(names)}); "
                "checkpoints and weights hold the first process's. Give them a rule in "
                "buffer_rules of the paradigm or transferer, or use layers that synchronise.",
                stacklevel=2,
            )

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ``loss`` as what to minimise, and every loss for the logs."""
        return losses["loss"], OrderedDict((k, v.detach()) for k, v in losses.items())


def stage_model(runner: Runner) -> StageModel:
    """Return the StageModel of a Runner, without its distributed wrapper."""
    model: Any = runner.model
    stage: StageModel = model.module if is_model_wrapper(model) else model
    return stage
