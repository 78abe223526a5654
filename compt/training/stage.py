"""StageModel: the student, its frozen teacher, the paradigm's loss and the transfer losses, as one
model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from compt.growth.axes import evaluating
from compt.growth.models import architecture, build_member
from compt.interfaces import Architecture, Batch, Member, Outputs, Paradigm, Transferer
from compt.registry import PARADIGMS, TRANSFERERS
from compt.training.loader import step_seed
from compt.training.performance import Performance
from compt.weights import load_weights


@MODELS.register_module(name="ComptStageModel")
class StageModel(BaseModel):
    """What an mmengine Runner trains in one stage.

    Args:
        paradigm: config of the paradigm.
        member: ``dict(name=..., model=...)`` of the student.
        init: file with the weights to start from (the grown ones); None starts from fresh weights.
        teacher: ``dict(name=..., model=..., weights=...)``; None trains without one.
        transfer: config of the transferer.
        performance: options of :class:`~compt.training.performance.Performance`.
        seed: of fresh weights and of what :meth:`Paradigm.prepare` draws.

    The teacher is in eval mode, gets no gradients, and is in no state dict. Projection heads of the
    transferer are trained and checkpointed with the student.
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
        seed: int = 0,
        data_preprocessor: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.paradigm: Paradigm = PARADIGMS.build(dict(paradigm))
        self.seed, self.iteration, self.max_iters = seed, 0, 1
        self.student = build_member(
            self.paradigm, Member(member["name"], member["model"]), seed=seed
        )
        if init is not None:
            load_weights(self.student, Path(init))
        self.performance = Performance(**(performance or {}))
        self.performance.prepare(self.student)
        self._run, self._teach = map(
            self.performance.compiled, (self.paradigm.forward, self.paradigm.teacher_forward)
        )
        self._teacher: list[nn.Module] = []  # in a list: not a submodule, so in no state dict
        self.transfer: Transferer | None = None
        if teacher is not None and transfer is not None:
            self._add_teacher(teacher, transfer)

    def _add_teacher(self, teacher: Mapping[str, Any], transfer: Mapping[str, Any]) -> None:
        transferer: Transferer = TRANSFERERS.build(dict(transfer))
        model = build_member(
            self.paradigm, Member(teacher["name"], teacher["model"]), seed=self.seed
        )
        load_weights(model, Path(teacher["weights"]))
        self._teacher = [model.eval().requires_grad_(False)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            transferer.bind(*(self._architecture(m) for m in (model, self.student)))
        self.transfer = transferer

    def _architecture(self, model: nn.Module) -> Architecture:
        with torch.no_grad(), evaluating(model):
            batch = self.paradigm.example_batch(model, 2)
            return architecture(self.paradigm, model, self.paradigm.forward(model, batch))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> StageModel:
        """Move the teacher along with the student."""
        for module in self._teacher:
            module._apply(fn)
        return super()._apply(fn, recurse)

    def init_weights(self) -> None:
        """Do nothing: the Runner would let the student initialise itself again."""

    @property
    def progress(self) -> float:
        """How far the stage is, 0 to 1."""
        return self.iteration / self.max_iters

    def generator(self) -> torch.Generator:
        """The random numbers of this iteration: the same after a resume, other ones in each
        process.
        """
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        device = next(self.student.parameters()).device
        return torch.Generator(device).manual_seed(step_seed(self.seed, self.iteration, rank))

    def context(self) -> AbstractContextManager[None]:
        """What the stage's precision and attention kernel put around the models' calls."""
        return self.performance.context(next(self.student.parameters()).device.type)

    def forward(self, mode: str = "tensor", **batch: Any) -> Any:
        """Return the paradigm's outputs, or in mode 'loss' the losses: ``loss`` is their sum, the
        rest is for logs.
        """
        prepared = self.paradigm.prepare(batch, generator=self.generator())
        with self.context():
            outputs = self._run(self.student, prepared)
            return self._losses(outputs, prepared) if mode == "loss" else outputs

    def _losses(self, outputs: Outputs, prepared: Batch) -> dict[str, Tensor]:
        terms = self.paradigm.loss(outputs, prepared)
        task = sum(terms.values(), start=torch.zeros((), device=next(iter(terms.values())).device))
        losses = {"loss": task, **{f"task/{name}": term.detach() for name, term in terms.items()}}
        strength = self.transfer.strength(self.progress) if self.transfer else 0.0
        if strength:
            added = self._transfer_loss(outputs, prepared, strength, task.detach())
            losses["loss"] = task + sum(added.values())
            losses |= {f"transfer/{name}": term.detach() for name, term in added.items()}
        elif self.transfer:  # distributed training wants a gradient for every parameter
            losses["loss"] = task + sum(
                0.0 * p.sum() for p in self.transfer.parameters() if p.requires_grad
            )
        return losses

    def _transfer_loss(
        self, outputs: Outputs, batch: Mapping[str, Any], strength: float, task: Tensor
    ) -> dict[str, Tensor]:
        """Run the teacher, weigh its terms, and keep their sum below the transferer's limit."""
        assert self.transfer is not None
        with torch.no_grad():
            targets = self._teach(self._teacher[0], batch, self.transfer.needs)
        terms = {
            k: strength * v
            for k, v in self.transfer(outputs, targets, progress=self.progress).items()
        }
        if self.transfer.limit is not None and terms:
            total = sum(terms.values(), start=torch.zeros_like(task)).detach().abs()
            factor = (self.transfer.limit * task.abs() / total.clamp_min(1e-12)).clamp(max=1.0)
            terms = {k: factor * v for k, v in terms.items()}
        return terms

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Minimise ``loss``; everything is logged."""
        return losses["loss"], OrderedDict((k, v.detach()) for k, v in losses.items())
