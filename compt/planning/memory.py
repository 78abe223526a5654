"""Estimate what memory a stage takes, from one step on the meta device."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint

from compt.config import ChainConfig, StageConfig
from compt.errors import ComptError
from compt.growth.axes import describe
from compt.growth.models import build_paradigm
from compt.interfaces import Paradigm, asked_after_step
from compt.interfaces.mini_batches import Forward, in_mini_batches
from compt.planning.as_on_gpu import as_on_gpu
from compt.planning.flops import FlopCounter
from compt.planning.live import Change, LiveBytes
from compt.planning.measure import meta_model
from compt.planning.plans import ChainPlan, StagePlan
from compt.registry import LAYOUTS, TRANSFERERS


@dataclass(frozen=True)
class Step:
    """What one step allocates and frees, batch and results included."""

    activations: int
    """Bytes that the forward pass leaves for the backward pass."""
    weight_copies: int
    """Bytes of weights in 16 bits among them."""
    changes: tuple[Change, ...] = ()
    gradients: frozenset[int] = frozenset()
    """The pieces that are gradients of weights."""
    copies: frozenset[int] = frozenset()
    """The pieces that are weights in 16 bits."""

    def peak(self, gradients: float = 1.0, copies: float = 1.0) -> int:
        """Return the most bytes at one moment, beside what is there between two steps.

        Args:
            gradients: the share of the weights' gradients that a device holds.
            copies: the share of their copies in 16 bits.
        """
        live = peak = 0.0
        for change in self.changes:
            share = gradients if change.piece in self.gradients else 1.0
            share = copies if change.piece in self.copies else share
            live += share * change.num_bytes
            peak = max(peak, live)
        return round(peak)


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a stage, on however many devices."""

    weights: int
    """Of the student, with what is not trained."""
    gradients: int
    optimizer: int
    """What the optimizer remembers of each weight; Adam's are two numbers, an average is one."""
    teacher: int
    """Weights of the teacher, 0 without one."""
    largest_block: int
    """Weights of the largest block, of those of which the student has stacks."""
    rest: int
    """Weights that are in no block."""
    batch_size: int
    is_half: bool
    """Whether matrices are multiplied in bfloat16 or float16."""
    is_accumulating: bool
    """Whether gradients of several iterations are added up."""
    is_divided: bool
    """Whether the model runs a mini-batch at a time."""
    steps: Mapping[bool, Step]
    """By whether blocks recompute their activations; without layouts they cannot."""


def memory(config: ChainConfig, plan: ChainPlan, world_size: int = 1) -> list[StageMemory]:
    """Estimate the memory of every stage.

    A step of each is run on the meta device, forward and backward, and what it allocates is
    followed tensor by tensor. Not counted are what kernels use while they run, what the allocator
    keeps in reserve, the projections of transferers, and the program itself.

    Args:
        config: of the chain.
        plan: of the same chain.
        world_size: number of processes, which a loss may gather the batch of.
    """
    with LAYOUTS.choosing(config.layouts), _processes(world_size):
        paradigm = build_paradigm(config.paradigm, missing_ok=True)
        counter, stages = FlopCounter(), []
        teacher: nn.Module | None = None
        for stage, planned in zip(config.stages, plan.stages, strict=True):
            model = meta_model(paradigm, stage.member, counter)
            needed = teacher if planned.teacher_iters else None
            trained = stage.as_grown if planned.grower else stage
            trial = _Trial(paradigm, model, needed, trained, planned, counter)
            stages.append(trial.memory())
            teacher = model
        return stages


def is_half(stage: StageConfig) -> bool:
    """Tell whether a stage multiplies matrices in a shorter number format."""
    kind = stage.optim_wrapper.get("type", "OptimWrapper")
    wrapper = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    is_amp = isinstance(wrapper, type) and issubclass(wrapper, AmpOptimWrapper)
    return is_amp or stage.performance.precision == "bf16"


@dataclass(frozen=True)
class _Trial:
    """A stage on the meta device."""

    paradigm: Paradigm
    model: nn.Module
    teacher: nn.Module | None
    stage: StageConfig
    plan: StagePlan
    counter: FlopCounter

    def memory(self) -> StageMemory:
        """Return what the stage takes."""
        model, stage = self.model, self.stage
        blocks = _blocks(model)
        ways = [False, True] if blocks else [False]
        steps = {way: self._step(blocks, recomputed=way) for way in ways}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        in_blocks = {p for block in blocks for p in block.parameters()}
        teacher = self.teacher
        averaged = 0 if stage.average is None else num_bytes(model.parameters())
        optimizer = stage.optim_wrapper.get("optimizer", {})
        return StageMemory(
            weights=num_bytes([*model.parameters(), *model.buffers()]),
            gradients=num_bytes(trained),
            optimizer=_optimizer_bytes(optimizer, trained, self.counter) + averaged,
            teacher=num_bytes([*teacher.parameters(), *teacher.buffers()]) if teacher else 0,
            largest_block=max((num_bytes(block.parameters()) for block in blocks), default=0),
            rest=num_bytes(p for p in model.parameters() if p not in in_blocks),
            batch_size=stage.batch_size,
            is_half=is_half(stage),
            is_accumulating=stage.optim_wrapper.get("accumulative_counts", 1) > 1,
            is_divided=(stage.performance.mini_batch_size or stage.batch_size) < stage.batch_size,
            steps=steps,
        )

    def _step(self, blocks: list[nn.Module], *, recomputed: bool) -> Step:
        """Run a step, and return what it allocates."""
        paradigm, model = self.paradigm, self.model
        kernel = self.stage.performance.attention
        on_gpu = as_on_gpu(is_half=is_half(self.stage), is_fused=kernel != "math")
        live = LiveBytes([*model.parameters(), *model.buffers()])
        model.train()
        with (
            on_gpu as copies,
            _recomputing(blocks) if recomputed else nullcontext(),
            self.counter,
            live,
        ):
            batch = paradigm.example_batch(model, self.stage.batch_size)
            outputs = self._divided(paradigm.forward)(model, batch)
            # A stage keeps as much for what is due after its step.
            kept = asked_after_step(paradigm, outputs, batch)
            loss = sum(paradigm.loss(outputs, batch).values())
            del outputs
            targets = self._targets(batch)
            activations = live.num_bytes
            weights_in_half = list(copies)
            pieces = live.pieces(weights_in_half)
            num_copied = num_bytes(weights_in_half)
            del weights_in_half
            copies.forget()
            loss.backward()  # type: ignore[union-attr]
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            noted = live.pieces(gradients)
        changes = tuple(live.added_in_place(noted))
        del kept, targets, gradients, loss
        model.zero_grad()
        return Step(activations, num_copied, changes, noted, pieces)

    @torch.no_grad()
    def _targets(self, batch: Any) -> Any:
        """Return what the teacher is read for, nothing without one."""
        if self.teacher is None:
            return None
        needs = TRANSFERERS.build(dict(self.stage.transfer)).needs
        return self._divided(self.paradigm.teacher_forward)(self.teacher, batch, needs)

    def _divided(self, forward: Forward) -> Forward:
        """Return a forward that runs a mini-batch at a time, where the stage does."""
        size = self.stage.performance.mini_batch_size
        return forward if size is None else in_mini_batches(forward, size)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model, none where no layout knows it."""
    try:
        scopes = describe(model).depths
    except ComptError:
        return []
    return [block for scope in scopes for block in model.get_submodule(scope).children()]


@contextmanager
def _processes(world_size: int) -> Iterator[None]:
    """Let this process be the first of several, of which the others are not there.

    What it gathers from them has the right shapes, so that a loss over the global batch takes the
    memory that it will.
    """
    if world_size == 1 or distributed.is_initialized():
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        with warnings.catch_warnings():
            # Libraries gather by functions that torch will rename; that is for training to say.
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def _recomputing(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Let blocks keep their inputs alone, and compute again in the backward pass."""
    changed = list(blocks)
    for block in changed:
        forward = MethodType(type(block).forward, block)
        block.forward = functools.partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in changed:
            del block.forward


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _optimizer_bytes(
    config: Mapping[str, Any], parameters: list[nn.Parameter], counter: FlopCounter
) -> int:
    """Return what an optimizer holds after its first step."""
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = OPTIMIZERS.build({**config, "params": parameters})
    with counter:
        optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    for parameter in parameters:
        parameter.grad = None
    return num_bytes(value for value in states if isinstance(value, Tensor))
