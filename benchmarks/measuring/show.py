"""Write results as JSON, and show a row on a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from compt.planning.rule import LONGER
from compt.report.format import plain_console, quantity
from compt.writing import atomic
from measuring.family import AS_PUBLISHED
from measuring.rule import SEEDS

Row = Mapping[str, Any]
"""As :meth:`measuring.row.Rows.measure` gives it, or as its JSON has it."""


def write(content: Any, path: Path) -> None:
    """Write JSON, with null for what is not a number, as the error of one seed is."""
    with atomic(path) as file:
        file.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_row(row: Row) -> None:
    """Print a row, the ratios last."""
    console = plain_console()
    title = f"{row['name']}, {row['iters']} iterations: {row['metric']}, {row['seeds']} seeds"
    console.print(_grid(title, ("member", "params", "rate", "alone"), _alone_cells(row)))
    if "chain" in row:
        budgets = ("member", "chain", "budget", "of its rate", "gain", "at least", "asked for")
        console.print(_grid("as good as alone", budgets, _chain_cells(row)))
        steps = ("member", "over its source", "at least", "asked for")
        console.print(_grid("order kept", steps, _step_cells(row)))
    for line in sentences(row):
        console.print(line, highlight=False, soft_wrap=True)


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        grid.add_column(column, justify="left" if column == "member" else "right")
    for cells in rows:
        grid.add_row(*cells)
    return grid


def _alone_cells(row: Row) -> list[tuple[str, ...]]:
    return [
        (
            member["name"],
            quantity(member["params"]),
            f"{member['lr']:.3g}",
            f"{mean(member['alone']):.4f}",
        )
        for member in row["members"]
    ]


def _chain_cells(row: Row) -> list[tuple[str, ...]]:
    return [
        (
            member["name"],
            f"{mean(row['chain'][i]):.4f}",
            f"{row['fractions'][i]:g}",
            f"{row['lr_mults'][i]:.2g}",
            signed(verdict["gain"]),
            signed(verdict["lower"]),
            f"{signed(-verdict['margin'])}{'' if verdict['as_good'] else ' missed'}",
        )
        for i, (member, verdict) in enumerate(zip(row["members"], row["verdicts"], strict=True))
    ]


def _step_cells(row: Row) -> list[tuple[str, ...]]:
    """Return the cells of all members but the first, which has no source."""
    pairs = zip(row["members"][1:], row["verdicts"][1:], strict=True)
    return [
        (
            member["name"],
            signed(verdict["step"]),
            signed(verdict["step_lower"]),
            f"{signed(verdict['required_step'])}{'' if verdict['in_order'] else ' missed'}",
        )
        for member, verdict in pairs
    ]


def signed(number: float | None) -> str:
    """Write a difference with its sign, '-' where there is none."""
    return "-" if number is None or not math.isfinite(number) else f"{number:+.4f}"


def times(ratio: float | None) -> str:
    """Write a ratio, '-' where there is none."""
    return "-" if not ratio or not math.isfinite(ratio) else f"{ratio:.2f}x"


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of a metric over seeds, NaN where one diverged."""
    return sum(math.nan if value is None else value for value in values) / len(values)


def sentences(row: Row) -> Iterator[str]:
    """Yield what a row says, in words."""
    opened = row["gate"]
    gaps = ", ".join(
        f"{signed(gap)} ± {'-' if error is None else format(error, '.4f')}"
        for gap, error in zip(opened["gaps"], opened["errors"], strict=True)
    )
    yield f"gate: neighbours alone differ by {gaps}"
    longer, largest = mean(row["smallest_longer"]), mean(row["members"][-1]["alone"])
    yield (
        f"gate: the smallest trained {LONGER} times as long comes to {longer:.4f}, "
        f"the largest to {largest:.4f}"
    )
    yield f"stop and pad: {padded_text(row)}"
    yield f"from the largest down: at most {times(row['downward_bound'])}"
    if not opened["open"]:
        yield f"no family here: {why_closed(row)}"
        return
    if row.get("grown_by"):
        yield f"grown: {grown_text(row)}"
    yield f"skip bound, by what sources are worth: {times(row['skip_bound'])}"
    yield f"beside members alone stopped at the chain's quality: {times(row['equal_quality'])}"
    for name in ("equal_compute", "equal_samples"):
        control = row[name]
        yield (
            f"{name.replace('_', ' ')}, the largest alone for {control['iters']} iterations: "
            f"{signed(control['gain'])} beside the chain's"
        )
    for name, reached in recipes(row).items():
        yield f"{name}: {recipe_text(row, reached)}"
    yield f"only the largest wanted: {times(row['only_the_largest'])}"
    yield f"as good as alone: {verdict_text(row, 'as_good')}"
    yield f"as good, and the order kept: {verdict_text(row, 'in_order')}"


def grown_text(row: Row) -> str:
    """Say how every member but the first was grown."""
    grown = zip(row["members"][1:], row["grown_by"][1:], strict=True)
    return "; ".join(f"{member['name']} by {text_of(ways)}" for member, ways in grown)


def why_closed(row: Row) -> str:
    """Say what closes the gate."""
    opened = row["gate"]
    if not all(opened["apart"]):
        return "sizes do not differ"
    return f"the smallest catches up in {LONGER} times its budget"


def padded_text(row: Row) -> str:
    """Say what a chain scores that stops and pads."""
    pads = row["pad_null"]
    if not pads["ratio"]:
        return "no member before the largest gets there"
    carried_on = "" if pads["measured"] else ", its curve carried on"
    return (
        f"{times(pads['ratio'])} ({pads['member']} for {pads['longer']:.2f} of its budget"
        f"{carried_on})"
    )


def recipes(row: Row) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return what other chains came to, by name, the published one first."""
    published = {AS_PUBLISHED: row["published"]} if row.get("published") else {}
    return {**published, **row.get("recipes", {})}


def recipe_text(row: Row, reached: Sequence[Mapping[str, Any]]) -> str:
    """Say what another chain saves, and how far its members are from alone."""
    gains = [member["gain"] for member in reached]
    is_whole = len(reached) == len(row["members"])
    if not is_whole or any(gain is None or not math.isfinite(gain) for gain in gains):
        return f"{row['members'][len(reached) - 1]['name']} diverged"
    cost = sum(member["flops"] for member in reached)
    ratio = sum(member["alone_flops"] for member in row["members"]) / cost
    return f"{times(ratio)}, members beside alone {', '.join(map(signed, gains))}"


def verdict_text(row: Row, verdict: str) -> str:
    """Say what the family saves, or who missed it."""
    at_these_budgets = f"(at these budgets {times(row['ratio'])})"
    if row["seeds"] < SEEDS:
        return f"undecided: {row['seeds']} of {SEEDS} seeds {at_these_budgets}"
    if row[verdict]:
        return f"{times(row['ratio'])} in FLOPs, {times(row['ratio_seconds'])} in seconds"
    names = [
        member["name"]
        for member, judged in zip(row["members"], row["verdicts"], strict=True)
        if not (judged["as_good"] and judged[verdict])
    ]
    return f"missed by {', '.join(names)} {at_these_budgets}"


def text_of(config: Mapping[str, Any]) -> str:
    """Write a config in one line, 'none' where it is empty."""
    return ", ".join(_entry(key, value) for key, value in config.items()) or "none"


def _entry(key: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{key}={value}"
    options = {name: inner for name, inner in value.items() if name != "type"}
    kind = f"={value['type']}" if "type" in value else ""
    return f"{key}{kind}({text_of(options)})" if options else f"{key}{kind}"
