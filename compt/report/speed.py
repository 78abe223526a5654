"""Say how fast stages were trained, and what share of their devices' peak that is.

The share counts the FLOPs of the models alone, which torch's counter has, and not what is computed
twice to save memory. It is the model FLOPs utilisation (MFU) of PaLM, arXiv 2204.02311, appendix B,
but that teacher passes are charged too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from compt.planning.devices import peak_of
from compt.report.format import quantity

if TYPE_CHECKING:
    from compt.report.record import StageRecord
    from compt.report.results import MemberResult, RunResult

RATE = "FLOP/s"
NAMES = {"fp32": "float32", "tf32": "TF32", "bf16": "16 bits", "fp16": "16 bits"}
"""What the number formats of a record are called."""


def device_peak(record: StageRecord) -> float | None:
    """Return the peak of a device that a stage ran on, in FLOP/s, None where it is not known.

    It is that of the number format in which the stage multiplied matrices.
    """
    name = record.environment.get("device")
    return None if not name or record.precision is None else peak_of(name, record.precision)


def mfu(record: StageRecord, peak: float | None) -> float | None:
    """Return the share of a device's peak that a stage reached, None where it is not known.

    Args:
        record: of the stage.
        peak: of a device, in FLOP/s.
    """
    rate = record.flops_per_second
    return rate / peak if rate is not None and peak else None


def rate_text(rate: float | None, share: float | None = None) -> str:
    """Write a rate in FLOP/s with its share of a peak, as in '346 TFLOP/s (35.0 %)'.

    What is not known is left out.
    """
    if rate is None:
        return ""
    return quantity(rate, RATE) + ("" if share is None else f" ({100 * share:.1f} %)")


def speed_text(member: MemberResult) -> str:
    """Write how fast a member was trained on each device, '' where it is not known."""
    return rate_text(member.record.flops_per_second, member.mfu)


def speed_header(members: Iterable[MemberResult]) -> str:
    """Return what stands above :func:`speed_text`, '' where it says nothing of any member."""
    members = [member for member in members if member.record.flops_per_second is not None]
    return rate_header(any(member.mfu is not None for member in members)) if members else ""


def rate_header(has_share: bool) -> str:
    """Return what stands above rates."""
    return "per device (MFU)" if has_share else "per device"


def speed_note(runs: Sequence[RunResult]) -> str:
    """Say what is counted, and of which peaks shares are, '' where no rate is known."""
    members = [member for run in runs for member in run.members]
    if not any(member.record.flops_per_second is not None for member in members):
        return ""
    note = "Per device: FLOPs of training a second, with those of teachers"
    peaks = dict.fromkeys(_peak_text(m) for m in members if m.mfu is not None)
    if not peaks:
        return f"{note}."
    return f"{note}; MFU: their share of the peak of {' and '.join(peaks)}."


def _peak_text(member: MemberResult) -> str:
    record = member.record
    device = record.environment.get("device") or "a device"
    in_format = f" in {NAMES.get(record.precision, record.precision)}" if record.precision else ""
    return f"{device}{in_format}, {quantity(member.peak or 0.0, RATE)}"
