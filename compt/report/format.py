"""Write numbers as people read them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compt.report.outcome import AVERAGE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from compt.report.growth import GrowthReport
    from compt.report.metrics import MetricValue
    from compt.report.record import StageRecord

UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
"""SI prefixes with their factors, the largest first."""


def plain_console() -> Console:
    """Return a console that does not wrap text.

    Where the output is no terminal, it is as wide as the tables need. Where it has not all
    characters, a question mark stands for those that it lacks.
    """
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def quiet_table(
    title: str | None, columns: Sequence[str], *, num_text: int = 1, show_edge: bool = True
) -> Table:
    """Return an empty table with a rule below its header, and none elsewhere.

    Args:
        title: above it.
        columns: their headers.
        num_text: how many of the first hold text, which stands left; the others hold numbers.
        show_edge: whether an empty line stands above and below it.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=show_edge,
    )
    for index, column in enumerate(columns):
        side: Any = "left" if index < num_text else "right"
        table.add_column(Text(column), justify=side, no_wrap=True)
    return table


def unit_of(numbers: Sequence[float]) -> tuple[float, str]:
    """Return the largest SI factor that the largest number has, with its prefix."""
    largest = max(numbers, default=0.0)
    return next((unit for unit in UNITS if largest >= unit[0]), (1.0, ""))


def quantity(value: float, unit: str = "") -> str:
    """Write a number with an SI prefix and three digits, as in '1.23 PFLOP'."""
    for factor, prefix in UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def is_share(metric: MetricValue) -> bool:
    """Return whether a metric reads best in per cent, as its unit says.

    Records of older versions have no unit. There it is what is to rise and lies between 0 and 1, as
    its chance level does.
    """
    if metric.unit is not None:
        return metric.unit == "share"
    numbers = (metric.value, metric.chance)
    within = all(number is not None and 0 <= number <= 1 for number in numbers)
    return within and bool(metric.higher_is_better)


def metric_label(name: str, metric: MetricValue) -> str:
    """Write what an axis of a metric's values says."""
    unit = " (%)" if is_share(metric) else ""
    direction = ", lower is better" if metric.higher_is_better is False else ""
    return f"{name}, held out{unit}{direction}"


def metric_text(metric: MetricValue | None, *, with_chance: bool = True) -> str:
    """Write a metric's value and what guessing would reach, as in '31.2 % (chance 1.1)'."""
    if metric is None:
        return "-"
    if metric.value is None:
        return "not finite"
    share, chance = is_share(metric), metric.chance
    text = f"{100 * metric.value:.1f} %" if share else f"{metric.value:.4g}"
    if chance is None or not with_chance:
        return text
    return f"{text} (chance {100 * chance:.2g})" if share else f"{text} (chance {chance:.4g})"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """Write a time as 'minutes:seconds', with hours and days before them where it is long."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{hours // 24}d {hours % 24}h"


def size(num_bytes: float) -> str:
    """Write an amount of memory, as in '1.9 GiB'."""
    gib = num_bytes / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{num_bytes / 2**20:.0f} MiB"


def times(factor: float | None) -> str:
    """Write an acceleration, '-' where there is none."""
    if factor is None:
        return "-"
    return f"{factor:.2f}x" if factor < 10 else f"{factor:.0f}x"


def incident_lines(record: StageRecord) -> list[str]:
    """Say what happened to the losses and weights of a stage, nothing where all is as usual."""
    lines = []
    if record.delivered != "last":
        is_average = record.delivered == AVERAGE
        whose = "of the average" if is_average else f"that {record.delivered} measures"
        text = f"the weights {whose} are delivered, not the last"
        if raw := record.raw_metrics.get(record.main_metric or ""):
            text += f", whose {record.main_metric} is {metric_text(raw, with_chance=False)}"
        lines.append(text)
    if record.spikes:
        worst = max(record.spikes, key=lambda spike: spike["loss"])
        many = f"{len(record.spikes)} spikes" if len(record.spikes) > 1 else "a spike"
        lines.append(
            f"{many} of the loss, the largest from a median of {worst['median']:.4g} to "
            f"{worst['loss']:.4g} at iteration {worst['first']}"
        )
    for rollback in record.rollbacks:
        lines.append(
            f"{rollback['reason']}: went back from iteration {rollback['at']} to {rollback['to']} "
            f"and left out {rollback['at'] - rollback['to']} batches"
        )
    return lines


def left_out_lines(left_out: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what of each split is left out, replaced or cut, nothing where all is used as it is.

    Args:
        left_out: split -> what :meth:`compt.interfaces.LeftOut.to_json` returns.
    """
    lines = []
    for split, counts in left_out.items():
        samples, parts, total = counts["samples"], counts["parts"], counts["total"]
        items = []
        if samples:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in samples.items())
            of_total = f" of {total:,}" if total else ""
            items.append(f"{sum(samples.values()):,}{of_total} left out or replaced: {reasons}")
        items += [f"{reason}: {count:,}" for reason, count in parts.items()]
        if items:
            num_read = counts.get("num_read")
            so_far = "" if num_read in (None, total) else f" ({num_read:,} read so far)"
            lines.append(f"data of '{split}': {'; '.join(items)}{so_far}")
    return lines


def growth_text(growth: GrowthReport) -> str:
    """Write whether growing kept the function, why not, and the measured error."""
    if not growth.function_preserving:
        text = f"does not keep the function: {growth.reason}"
    elif growth.error is None:
        text = "keeps the function by its rules (not measured)"
    else:
        text = "keeps the function"
    if growth.error is not None:
        text += f" (measured error {growth.error:.1e})"
    if growth.probed:
        losses = (f"{name} {held_out:.4g}" for name, _, held_out in growth.probed)
        text += f"; the best of a probe, by held-out loss: {', '.join(losses)}"
    if growth.grown_from:
        text += f"; grown from {growth.grown_from}"
    if growth.dropped:
        text += f"; not used of the source: {_dropped_text(growth.dropped)}"
    if growth.held_whole:
        text += f"; grown in memory as a whole: {growth.held_whole}"
    return text


def _dropped_text(names: Sequence[str], most: int = 4) -> str:
    """Write how many tensors were dropped, and the names of the first."""
    listed = ", ".join(f"'{name}'" for name in names[:most])
    rest = f" and {len(names) - most} more" if names[most:] else ""
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"{tensors} ({listed}{rest})"


def tensor_counts(counts: Mapping[str, int]) -> str:
    """Write how many tensors of a grown model came about in which way."""
    return ", ".join(f"{number} {status}" for status, number in counts.items())
