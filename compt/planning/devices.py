"""Hold what GPUs can do at most, by their data sheets, to estimate hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from compt.planning.plans import ChainPlan

MFU = 0.35
"""Share of its peak that a GPU is assumed to reach; small models and slow data reach less."""
RECOMPUTED = 1 / 3
"""What a second forward pass adds to forward and backward, as backward is twice forward."""


@dataclass(frozen=True)
class Device:
    """One GPU, by its vendor's data sheet: dense peaks, without sparsity."""

    name: str
    memory: float
    """In GB."""
    half: float
    """Peak in bfloat16, or float16 where it has no bfloat16, with sums in float32, in TFLOP/s."""
    single: float
    """Peak in float32, in TFLOP/s, without TF32, as torch multiplies matrices by default."""

    def flops(self, *, is_half: bool) -> float:
        """Return the peak in FLOP/s."""
        return 1e12 * (self.half if is_half else self.single)

    @property
    def num_bytes(self) -> float:
        """Its memory in bytes."""
        return 1e9 * self.memory


DEVICES = (
    Device("H200", 141, 989, 67),
    Device("H100-SXM", 80, 989, 67),
    Device("H100-PCIe", 80, 756, 51),
    Device("A100-80GB", 80, 312, 19.5),
    Device("A100-40GB", 40, 312, 19.5),
    Device("L40S", 48, 362, 91.6),
    Device("L4", 24, 121, 30.3),
    Device("T4", 16, 65, 8.1),
    Device("RTX-4090", 24, 165, 82.6),
    Device("RTX-3090", 24, 71, 35.6),
    Device("MI300X", 192, 1307, 163.4),
)
"""From the data sheets of NVIDIA and AMD, as of 2025."""
REPORTED = {
    "NVIDIA H200": "H200",
    "NVIDIA H100 80GB HBM3": "H100-SXM",
    "NVIDIA H100 PCIe": "H100-PCIe",
    "NVIDIA A100-SXM4-80GB": "A100-80GB",
    "NVIDIA A100 80GB PCIe": "A100-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-40GB",
    "NVIDIA A100-PCIE-40GB": "A100-40GB",
    "NVIDIA L40S": "L40S",
    "NVIDIA L4": "L4",
    "Tesla T4": "T4",
    "NVIDIA GeForce RTX 4090": "RTX-4090",
    "NVIDIA GeForce RTX 3090": "RTX-3090",
    "AMD Instinct MI300X": "MI300X",
}
"""What torch calls them. A part of one (MIG) or another of its name, as for laptops, is none."""


def device(name: str) -> Device:
    """Return a GPU by its name, in any case and with or without hyphens.

    Raises:
        ConfigError: there is none of this name.
    """
    known = {_plain(device.name): device for device in DEVICES}
    if _plain(name) in known:
        return known[_plain(name)]
    names = [device.name for device in DEVICES]
    raise ConfigError(
        f"There is no data sheet of a GPU '{name}' here.{did_you_mean(name, names)}",
        where="--device",
        do=f"One of {', '.join(names)}.",
    )


def peak_of(reported: str, precision: str) -> float | None:
    """Return the peak of a GPU in a number format, in FLOP/s, None where it is not known.

    Args:
        reported: what torch calls the GPU.
        precision: 'fp32', 'bf16' or 'fp16'; of others no peak is known.
    """
    name = REPORTED.get(reported)
    if name is None or precision not in ("fp32", "bf16", "fp16"):
        return None
    return device(name).flops(is_half=precision != "fp32")


def check_peak(tflops: float) -> None:
    """Raise ConfigError for TFLOP/s that no device has."""
    if not 0 < tflops < float("inf"):
        raise ConfigError(f"--tflops {tflops:g} is no peak.", do="Above 0, such as 312.")


def hours(
    plan: ChainPlan, peaks: Sequence[float], mfu: float, *, recomputed: bool = False
) -> list[float]:
    """Return the hours of each stage.

    Args:
        plan: of a chain.
        peaks: of all devices together, in FLOP/s, in the number format of each stage.
        mfu: share of the peak that is reached.
        recomputed: whether a second forward pass is computed, which is a third of a step.

    Raises:
        ConfigError: the share is none.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(
            f"--mfu {mfu:g} is no share of a GPU's peak.", do="Above 0, at most 1; 0.35 by default."
        )
    again = RECOMPUTED if recomputed else 0.0
    return [
        (stage.flops + again * stage.samples * stage.student_flops) / (peak * mfu) / 3600
        for stage, peak in zip(plan.stages, peaks, strict=True)
    ]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
