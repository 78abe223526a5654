"""Read what a machine says of its memory and energy, as far as it says it."""

from __future__ import annotations

import contextlib
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")
"""Where Linux has the counters of Intel's and AMD's processors."""
PEAK_RESET = "5"
"""What Linux wants written into a process's clear_refs to forget its peak."""


def reset_peaks() -> None:
    """Let the next peaks of memory be of what comes now, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(PEAK_RESET)


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has held, None where the system does not say.

    On Linux since :func:`reset_peaks`, elsewhere since the process began.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_device_memory_bytes() -> int | None:
    """Return the most that torch had allocated on this process's CUDA device, None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def matmul_rate(dtype: torch.dtype, size: int = 8192, *, times: int = 10) -> float:
    """Return the FLOP/s at which this process's device multiplies square matrices.

    It is the fastest of several times, which a GPU reaches once it is warm.

    Args:
        dtype: of the matrices.
        size: rows and columns.
        times: products that are timed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest = math.inf
    for _ in range(times):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


class EnergyCounter:
    """A counter of energy, from now on.

    Args:
        name: of what it counts, after the kind of meter, as in 'rapl:host:intel-rapl:0'.
        read: returns its reading in joules.
        wraps_at: reading at which it begins anew with 0, in joules.
    """

    def __init__(self, name: str, read: Callable[[], float], *, wraps_at: float = math.inf) -> None:
        self.name, self._read, self._wraps_at = name, read, wraps_at
        self._last, self._total = read(), 0.0

    def joules(self) -> float:
        """Return what it has counted so far.

        It has to be asked at least once each time that the counter goes round.
        """
        reading = self._read()
        step = reading - self._last
        self._total += step if step >= 0 else step + self._wraps_at
        self._last = reading
        return self._total


def meter_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of the meters with these names."""
    return tuple(sorted({name.partition(":")[0] for name in names}))


def energy_counters() -> list[EnergyCounter]:
    """Return the counters of this process's CUDA device and of the machine's processors.

    What is missing is left out, and what may not be read, as RAPL by others than root mostly.
    """
    return [*_nvml_counters(), *rapl_counters(RAPL)]


def rapl_counters(folder: Path) -> Iterator[EnergyCounter]:
    """Yield one counter a processor package, whose cores and memory it covers."""
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:  # a part of a package
            continue
        with contextlib.suppress(OSError, ValueError):
            yield EnergyCounter(
                f"rapl:{platform.node()}:{zone.name}",
                partial(_joules, zone / "energy_uj"),
                wraps_at=_joules(zone / "max_energy_range_uj"),
            )


def _joules(path: Path) -> float:
    """Read a file of microjoules."""
    return int(path.read_text()) / 1e6


def _nvml_counters() -> Iterator[EnergyCounter]:
    """Yield the counter of the CUDA device, where there is one and its library is installed."""
    if not torch.cuda.is_available():
        return
    try:
        import pynvml
    except ImportError:
        return
    uuid = f"GPU-{torch.cuda.get_device_properties().uuid}"
    try:
        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        yield EnergyCounter(
            f"nvml:{uuid}", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3
        )
    except pynvml.NVMLError:  # a device older than Volta, or a share of one
        return
