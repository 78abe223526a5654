"""The sections of a model card, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compt._version import __version__
from compt.report.format import duration, left_out_lines, metric_text, quantity, tensor_counts
from compt.report.growth import GrowthReport
from compt.report.metrics import Metrics
from compt.report.record import StageRecord
from compt.report.speed import device_peak, mfu, rate_header, rate_text


def summary_text(record: StageRecord, members: Sequence[str]) -> str:
    """Say how large the model is, and which member of which chain."""
    params = quantity(record.params)
    if record.mode == "individual":
        return f"A model of {params} parameters, trained alone with compt ({record.paradigm})."
    return (
        f"A model of {params} parameters, member {record.index + 1} of {len(members)} of the chain "
        f"{' -> '.join(members)}, trained with compt ({record.paradigm})."
    )


def making_text(record: StageRecord, base: str, init: str | None) -> str:
    """Say where the weights come from, and what the member learned from as it trained."""
    if record.growth is None:
        origin = f"It started from `{base}` (`{init}`)." if init else "It was trained from scratch."
        return origin if record.iters else f"{origin} It was not trained further."
    lines = [growing_text(record.growth, base)]
    if record.transfer not in (None, "none"):
        lines.append(f"In training `{base}` was its teacher ({record.transfer}).")
    return "\n\n".join(lines)


def growing_text(growth: GrowthReport, base: str) -> str:
    """Say by what the weights were grown, what became of the tensors, and how exact it was."""
    lines = [f"Its first weights were grown from `{base}` by `{growth.grower}`."]
    if growth.function_preserving:
        measured = "" if growth.error is None else f" (measured: {growth.error:.1e})"
        lines.append(f"The grown model computed what its source did{measured}.")
    else:
        measured = "" if growth.error is None else f", outputs differed by {growth.error:.1e}"
        lines.append(f"It did not compute what its source did: {growth.reason}{measured}.")
    lines.append(f"Tensors: {tensor_counts(growth.counts)}; {len(growth.dropped)} dropped.")
    if growth.reset:
        lines.append(f"Set anew: {len(growth.reset)}.")
    return " ".join(lines)


def costs_text(records: Sequence[StageRecord]) -> str:
    """Return a table with a row a stage, and what all of them cost."""
    shares = [mfu(record, device_peak(record)) for record in records]
    rows = [
        (
            record.name,
            f"{record.iters:,}",
            f"{record.samples:,}",
            quantity(record.flops.total, "FLOP"),
            duration(record.seconds),
            rate_text(record.flops_per_second, share),
        )
        for record, share in zip(records, shares, strict=True)
    ]
    has_rates = any(rate for *_, rate in rows)
    if len(rows) > 1:
        samples = sum(record.samples for record in records)
        flops = sum(record.flops.total for record in records)
        seconds = sum(record.seconds for record in records)
        total = (f"{samples:,}", quantity(flops, "FLOP"), duration(seconds))
        rows.append(("all of them", "", *total, ""))
    header = ["stage", "iterations", "samples", "compute", "time"]
    if has_rates:
        header.append(rate_header(any(share is not None for share in shares)))
    table = _table(header, [row[: len(header)] for row in rows])
    note = "A multiply-add counts as 2; teachers and learned growth are charged."
    ended = f"\n\n{records[-1].stopped}." if records[-1].stopped else ""
    return f"{table}\n\n{note}{ended}"


def data_text(record: StageRecord, data: Mapping[str, Any], licence: str) -> str:
    """Name the data with its options and licence, and what of it was left out."""
    if not data:
        return ""
    options = ", ".join(f"{key}={value!r}" for key, value in data.items() if key != "type")
    lines = [f"`{data.get('type')}`" + (f" with {options}" if options else "") + "."]
    lines.append(f"Licence: {licence}." if licence else "Its source declares no licence.")
    lines += [f"Left out: {line}." for line in left_out_lines(record.left_out)]
    return "\n\n".join(lines)


def metrics_text(metrics: Metrics) -> str:
    """Return a table of held-out metrics with what guessing would reach, '' without any."""
    rows = []
    for name, metric in metrics.items():
        chance = "" if metric.chance is None else f"{metric.chance:.4g}"
        rows.append((name, metric_text(metric, with_chance=False), chance, metric.unit or ""))
    return _table(("metric", "value", "chance", "unit"), rows) if rows else ""


def versions_text(record: StageRecord) -> str:
    """Name what the stage ran with: machine, packages, git revision."""
    versions = dict(record.environment)
    packages = versions.pop("packages", "") or f"compt {__version__}"
    if "torch " in packages:
        versions.pop("torch", None)
    return ", ".join([*(f"{name} {value}" for name, value in versions.items()), packages])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
