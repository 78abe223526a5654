"""Estimate what a chain takes on devices of one kind: memory, hours and bytes on the disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from compt.config import ChainConfig
from compt.planning.devices import Device, hours
from compt.planning.memory import StageMemory, memory
from compt.planning.plans import ChainPlan
from compt.planning.sharing import DeviceMemory, Spread
from compt.planning.volume import Volume, volume


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes."""

    name: str
    memory: StageMemory
    ways: tuple[DeviceMemory, ...]
    """What it takes of each device, by the ways to share it."""
    chosen: DeviceMemory
    """The one that the config chooses."""
    hours: float
    recomputing_hours: float
    """Where blocks recompute their activations."""
    volume: Volume

    def hours_of(self, way: DeviceMemory) -> float:
        """Return the hours of a way."""
        return self.recomputing_hours if way.recomputed else self.hours


@dataclass(frozen=True)
class Estimate:
    """What a chain takes."""

    device: Device
    devices: int
    mfu: float
    stages: tuple[StageEstimate, ...]

    @property
    def hours(self) -> float:
        """Of all stages, as the config trains them."""
        return sum(stage.hours_of(stage.chosen) for stage in self.stages)

    @property
    def left(self) -> int:
        """Bytes that the finished chain leaves."""
        return sum(stage.volume.left for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain types."""
        return {
            "device": asdict(self.device),
            "devices": self.devices,
            "mfu": self.mfu,
            "hours": self.hours,
            "left": self.left,
            "members": [self._member(stage) for stage in self.stages],
        }

    def _member(self, stage: StageEstimate) -> dict[str, Any]:
        size = self.device.num_bytes
        ways = [
            {**asdict(way), "fits": way.fits(size), "hours": stage.hours_of(way)}
            for way in stage.ways
        ]
        return {
            "name": stage.name,
            "chosen": stage.ways.index(stage.chosen),
            "ways": ways,
            "volume": asdict(stage.volume),
        }


def estimate(
    config: ChainConfig, plan: ChainPlan, device: Device, *, devices: int, mfu: float
) -> Estimate:
    """Estimate what a chain takes.

    Args:
        config: of the chain.
        plan: of the same chain, over as many processes as devices.
        device: each of them.
        devices: how many.
        mfu: share of their peak that is reached.

    Raises:
        ConfigError: the share is none, or the devices cannot be divided as the config says.
    """
    spread = Spread.of(config.parallel, devices)
    needed = memory(config, plan, devices)
    peaks = [devices * device.flops(is_half=parts.is_half) for parts in needed]
    kept, recomputed = (hours(plan, peaks, mfu, recomputed=way) for way in (False, True))
    stages = []
    for index, (stage, parts) in enumerate(zip(config.stages, needed, strict=True)):
        ways = spread.ways(parts)
        recomputes = stage.performance.grad_checkpointing
        stages.append(
            StageEstimate(
                stage.name,
                parts,
                tuple(ways),
                spread.chosen(ways, recomputed=recomputes),
                kept[index],
                recomputed[index],
                volume(config, plan.stages[index], parts),
            )
        )
    return Estimate(device, devices, mfu, tuple(stages))
