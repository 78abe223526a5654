"""Show what a chain takes on devices: memory each way, hours, and bytes on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compt.report.format import quantity, quiet_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from compt.planning.devices import Device
    from compt.planning.estimate import Estimate, StageEstimate
    from compt.planning.sharing import DeviceMemory

MEMORY = ("weights", "gradients", "optimizer", "teacher", "activations", "gathered", "at most")
DISK = ("one checkpoint", "at once", "written", "left")
WAYS = {"one": "", "ddp": "ddp", "fsdp": "fsdp"}
WORTH_SAYING = 0.05
"""Share of a stage's memory that copies of weights in 16 bits may take without a word."""


def device_table(estimate: Estimate) -> RenderableType:
    """Return memory and hours of every stage and way, then what is written."""
    from rich.console import Group

    return Group(_memory_table(estimate), _disk_table(estimate))


def device_text(estimate: Estimate) -> str:
    """Return how memory and hours are estimated, and where a stage will not fit."""
    return "\n".join(_lines(estimate))


def device_title(estimate: Estimate) -> str:
    """Say what the estimate is for."""
    device, count = estimate.device, estimate.devices
    batch = estimate.stages[0].memory.batch_size
    if count == 1:
        return f"estimate for one {device.name}"
    return (
        f"estimate for {count:,} x {device.name}, with {batch:,} samples each and "
        f"{count * batch:,} an iteration"
    )


def hours_text(hours: float) -> str:
    """Write hours, or minutes and seconds where they are few."""
    if hours >= 100:
        return f"{hours:,.0f} h"
    for limit, factor, unit in ((1, 1, "h"), (1 / 60, 60, "min")):
        if hours >= limit:
            return f"{hours * factor:.3g} {unit}"
    return f"{hours * 3600:.2g} s"


def _memory_table(estimate: Estimate) -> Table:
    is_shared = estimate.devices > 1
    names = [name for name in MEMORY if is_shared or name != "gathered"]
    columns = ["member", "way", *names, "fits", "hours"]
    table = quiet_table(device_title(estimate), columns, num_text=2)
    for stage in estimate.stages:
        for way in stage.ways:
            sizes = {
                "weights": way.weights,
                "gradients": way.gradients,
                "optimizer": way.optimizer,
                "teacher": way.teacher,
                "activations": way.activations,
                "gathered": way.gathered,
                "at most": way.peak,
            }
            table.add_row(
                stage.name if way is stage.ways[0] else "",
                f"{way_text(way)}{' *' if way is stage.chosen else ''}",
                *(quantity(sizes[name], "B") if sizes[name] else "-" for name in names),
                "yes" if way.fits(estimate.device.num_bytes) else "no",
                hours_text(stage.hours_of(way)),
            )
    return table


def _disk_table(estimate: Estimate) -> Table:
    table = quiet_table("on the disk", ["member", *DISK])
    for stage in estimate.stages:
        volume = stage.volume
        table.add_row(
            stage.name,
            quantity(volume.checkpoint, "B"),
            quantity(volume.at_once, "B"),
            f"{volume.num_written:,} x = {quantity(volume.written, 'B')}",
            quantity(volume.left, "B"),
        )
    return table


def way_text(way: DeviceMemory) -> str:
    """Name a way to train a stage."""
    recomputing = "recomputing" if way.recomputed else ""
    return ", ".join(filter(None, (WAYS[way.way], recomputing))) or "plain"


def _lines(estimate: Estimate) -> Iterator[str]:
    yield "* as the config says; recomputing is grad_checkpointing=True"
    yield from _hours_lines(estimate)
    yield from _memory_lines(estimate)
    for stage in estimate.stages:
        if not stage.chosen.fits(estimate.device.num_bytes):
            yield f"warning: {_does_not_fit(stage, estimate.device)}"


def _hours_lines(estimate: Estimate) -> Iterator[str]:
    device, count = estimate.device, estimate.devices
    halves = {stage.memory.is_half for stage in estimate.stages}
    peaks = " and ".join(
        f"{device.half if half else device.single:g} TFLOP/s in {'16 bits' if half else 'float32'}"
        for half in sorted(halves)
    )
    of_all = f"{count:,} x peak" if count > 1 else "peak"
    yield (
        f"{hours_text(estimate.hours)} in all: hours = compute / ({of_all} x mfu), with {peaks}, "
        f"dense, and mfu = {estimate.mfu:g}. That is an assumption (--mfu): small models, slow "
        "data and slow networks reach far less. Recomputing computes a third more. Growth, "
        "evaluation and start-up come beside."
    )
    if False in halves and device.half > 2 * device.single:
        yield (
            "float32 is the config's number format; precision='bf16' would have "
            f"{device.half:g} TFLOP/s, in 16 bits."
        )


def _memory_lines(estimate: Estimate) -> Iterator[str]:
    from compt.planning.sharing import RESERVE

    sent = (
        " ddp holds gradients twice, as it sends them; fsdp holds a share of all three, and what "
        "is gathered at the moment."
        if estimate.devices > 1
        else ""
    )
    yield (
        "at most: weights, what the optimizer remembers and the teacher, in float32, and what a "
        "step allocates at its worst moment, followed tensor by tensor without a GPU: activations "
        f"go while gradients come.{sent} It fits where {RESERVE:g} times as much is there: "
        "kernels, libraries and gaps take some too."
    )
    for stage in estimate.stages:
        sharded = [way for way in stage.ways if way.way == "fsdp" and way.copies]
        is_meant = stage.chosen.way == "fsdp" or not stage.chosen.fits(estimate.device.num_bytes)
        if is_meant and any(way.copies > WORTH_SAYING * way.peak for way in sharded):
            yield (
                f"'{stage.name}': with fsdp autocast keeps all weights in 16 bits beside, "
                f"{quantity(sharded[0].copies, 'B')} of its activations; "
                "parallel=dict(type='fsdp', gather='bf16') does without."
            )


def _does_not_fit(stage: StageEstimate, device: Device) -> str:
    """Say what of a stage is too large, and what makes it smaller."""
    size = device.num_bytes
    fitting = [way for way in stage.ways if way.fits(size)]
    if fitting:
        ways = " or ".join(f"'{way_text(way)}'" for way in fitting)
        do = f"{ways} would fit."
    elif min(way.peak - way.activations for way in stage.ways) > size:
        do = "no way fits whatever the batch; use more devices, or larger ones."
    else:
        a_sample = quantity(stage.chosen.activations / stage.memory.batch_size, "B")
        do = (
            "no way fits; use a smaller train_dataloader.batch_size, activations are "
            f"{a_sample} a sample."
        )
    return (
        f"'{stage.name}' needs {stage.chosen.peak / 1e9:.1f} GB, and a fifth in reserve, where a "
        f"device has {device.memory:g} GB: {do}"
    )
