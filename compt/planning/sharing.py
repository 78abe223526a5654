"""Say what a stage takes of one device, whole or sharded, with activations kept or recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compt.config.parallel import Parallel, Sharded
from compt.errors import ConfigError
from compt.planning.memory import StageMemory

RESERVE = 1.2
"""What a device should have, of what is estimated: kernels, libraries and gaps take some."""
GATHERED_BLOCKS = 3
"""Blocks whose weights are gathered at once: one that computes, one that comes, one that goes."""
UNREDUCED_BLOCKS = 2
"""Blocks whose gradients are whole at once: one that computes, one that is sent."""
BF16 = 0.5
"""Bytes of bfloat16, of those of float32."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device."""

    way: Literal["one", "ddp", "fsdp"]
    recomputed: bool
    """Whether blocks recompute their activations (`grad_checkpointing`)."""
    weights: int
    gradients: int
    """Whole, and under DistributedDataParallel once more as they are sent."""
    optimizer: int
    teacher: int
    activations: int
    """What the forward pass leaves for the backward pass, batch included."""
    copies: int
    """Of the activations, weights in 16 bits."""
    gathered: int
    """Weights and gradients of what is whole at the moment, where they are sharded."""
    peak: int
    """The most at one moment.

    It may be less than the sum, as activations go while gradients come, and more, as the backward
    pass needs room.
    """

    def fits(self, size: float) -> bool:
        """Tell whether a device of this many bytes has room, with a reserve."""
        return RESERVE * self.peak <= size


@dataclass(frozen=True)
class Spread:
    """How many devices share a stage, and how they would if they shard it."""

    devices: int
    options: Sharded
    is_sharded: bool
    """Whether the config says so."""

    @classmethod
    def of(cls, parallel: Parallel, devices: int) -> Spread:
        """Return how a config spreads its stages.

        Raises:
            ConfigError: the devices cannot be divided into copies.
        """
        is_sharded = isinstance(parallel, Sharded)
        options = parallel if isinstance(parallel, Sharded) else Sharded()
        if options.processes is not None and devices % options.processes:
            raise ConfigError(
                f"{devices} devices cannot be divided into copies of {options.processes}.",
                where="parallel.processes",
                do=f"Give --devices a multiple of {options.processes}.",
            )
        return cls(devices, options, is_sharded and devices > 1)

    @property
    def shards(self) -> int:
        """How many devices hold one copy of the weights."""
        return self.options.processes or self.devices

    def ways(self, stage: StageMemory) -> list[DeviceMemory]:
        """Return what a stage takes each way that there is."""
        sharded = [False, True] if self.devices > 1 else [False]
        return [
            self._sharded(stage, way) if is_sharded else self._whole(stage, way)
            for is_sharded in sharded
            for way in stage.steps
        ]

    def chosen(self, ways: Sequence[DeviceMemory], *, recomputed: bool) -> DeviceMemory:
        """Return the way that the config chooses.

        Args:
            ways: of :meth:`ways`.
            recomputed: as the stage's performance options say.
        """
        kinds = ("fsdp",) if self.is_sharded else ("one", "ddp")
        of_kind = [way for way in ways if way.way in kinds]
        return next((way for way in of_kind if way.recomputed == recomputed), of_kind[0])

    def _whole(self, stage: StageMemory, recomputed: bool) -> DeviceMemory:
        step = stage.steps[recomputed]
        sent = stage.gradients if self.devices > 1 else 0
        held = stage.weights + stage.optimizer + stage.teacher + sent
        if stage.is_accumulating:
            moving = stage.gradients + step.peak(gradients=0)
        else:
            moving = step.peak()
        return DeviceMemory(
            "ddp" if self.devices > 1 else "one",
            recomputed,
            stage.weights,
            stage.gradients + sent,
            stage.optimizer,
            stage.teacher,
            step.activations,
            step.weight_copies,
            gathered=0,
            peak=held + moving,
        )

    def _sharded(self, stage: StageMemory, recomputed: bool) -> DeviceMemory:
        step, shards, options = stage.steps[recomputed], self.shards, self.options
        weights, gradients, optimizer = (
            -(-size // shards) for size in (stage.weights, stage.gradients, stage.optimizer)
        )
        teacher = stage.teacher // shards if options.teacher == "sharded" else stage.teacher
        format_ = BF16 if options.gather == "bf16" else 1.0
        blocks = GATHERED_BLOCKS * stage.largest_block
        if not options.reshard:
            blocks = stage.weights - stage.rest + stage.largest_block
        unreduced = UNREDUCED_BLOCKS * stage.largest_block
        gathered = round(stage.rest + format_ * blocks + unreduced)
        copies = 0.0 if options.gather == "bf16" else 1.0  # weights come in 16 bits
        if stage.is_divided:  # gradients are whole until those of all mini-batches are added up
            moving = step.peak(1.0, copies) + (gradients if stage.is_accumulating else 0)
        elif stage.is_accumulating:
            moving = gradients + step.peak(0, copies)
        else:
            moving = step.peak(1 / shards, copies)
        return DeviceMemory(
            "fsdp",
            recomputed,
            weights,
            gradients,
            optimizer,
            teacher,
            step.activations - step.weight_copies + round(copies * step.weight_copies),
            round(copies * step.weight_copies),
            gathered,
            peak=weights + optimizer + teacher + gathered + moving,
        )
