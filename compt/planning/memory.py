"""Estimate what memory a stage takes on a device, from one step on the meta device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from compt.config import ChainConfig, StageConfig
from compt.growth.models import build_paradigm
from compt.interfaces import Paradigm
from compt.planning.flops import FlopCounter
from compt.planning.measure import meta_model
from compt.planning.plans import ChainPlan
from compt.registry import LAYOUTS


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a stage on one device, all in float32."""

    weights: int
    """Of the student, with what is not trained."""
    gradients: int
    optimizer: int
    """What the optimizer remembers of each weight; Adam's are two numbers, an average is one."""
    teacher: int
    """Weights of the teacher, 0 without one."""
    activations: int
    """What the forward pass of one batch keeps for the backward pass, in float32."""
    batch_size: int
    is_half: bool
    """Whether matrices are multiplied in bfloat16 or float16, which halves most activations."""

    @property
    def fixed(self) -> int:
        """All but activations."""
        return self.weights + self.gradients + self.optimizer + self.teacher

    @property
    def kept(self) -> int:
        """The activations in the number format that they are kept in."""
        return self.activations // (2 if self.is_half else 1)

    @property
    def kept_a_sample(self) -> float:
        """The same of one sample."""
        return self.kept / self.batch_size

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.kept


def memory(config: ChainConfig, plan: ChainPlan) -> list[StageMemory]:
    """Estimate the memory of every stage.

    What a forward pass keeps is measured, tensor by tensor, on the meta device. Not counted are
    what operators use while they run, what the allocator keeps in reserve, and the program itself.

    Args:
        config: of the chain.
        plan: of the same chain.
    """
    with LAYOUTS.choosing(config.layouts):
        paradigm = build_paradigm(config.paradigm, missing_ok=True)
        counter, teacher, stages = FlopCounter(), 0, []
        for stage, planned in zip(config.stages, plan.stages, strict=True):
            model = meta_model(paradigm, stage.member, counter)
            reads = teacher if planned.teacher_iters else 0
            stages.append(_of_stage(paradigm, model, stage, counter, reads))
            teacher = stages[-1].weights
        return stages


def is_half(optim_wrapper: Mapping[str, Any]) -> bool:
    """Tell whether an optim_wrapper multiplies matrices in a shorter number format."""
    kind = optim_wrapper.get("type", "OptimWrapper")
    wrapper = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    return isinstance(wrapper, type) and issubclass(wrapper, AmpOptimWrapper)


def _of_stage(
    paradigm: Paradigm, model: nn.Module, stage: StageConfig, counter: FlopCounter, teacher: int
) -> StageMemory:
    batch = paradigm.example_batch(model, stage.batch_size)
    model.train()
    saved = _Kept([*model.parameters(), *model.buffers()])
    with counter, saved_tensors_hooks(saved.add, lambda tensor: tensor):
        losses = paradigm.loss(paradigm.forward(model, batch), batch).values()
        total = sum(losses)
    total.backward()  # type: ignore[union-attr]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    averaged = 0 if stage.average is None else _bytes(model.parameters())
    return StageMemory(
        weights=_bytes([*model.parameters(), *model.buffers()]),
        gradients=_bytes(trained),
        optimizer=_optimizer_bytes(stage.optim_wrapper.get("optimizer", {}), trained) + averaged,
        teacher=teacher,
        activations=saved.num_bytes,
        batch_size=stage.batch_size,
        is_half=is_half(stage.optim_wrapper),
    )


class _Kept:
    """Adds up what the backward pass will read, every piece of memory once."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        self._storages = {tensor.untyped_storage()._cdata: tensor for tensor in others}
        """Pieces of memory that are known, with a tensor that keeps each from being used anew."""
        self.num_bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd keeps, unless it is a weight or counted already."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = tensor.detach()
            self.num_bytes += storage.nbytes()
        return tensor


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _optimizer_bytes(config: Mapping[str, Any], parameters: list[nn.Parameter]) -> int:
    """Return what an optimizer holds after its first step."""
    optimizer = OPTIMIZERS.build({**config, "params": parameters})
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return _bytes(value for value in states if isinstance(value, Tensor))
