"""Numbers as people read them, and the table of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from compt.planning.plans import ChainPlan
    from compt.report.prediction import Prediction

UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain_console() -> Console:
    """A console that does not wrap text; what is no terminal is as wide as the tables need."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def quantity(value: float, unit: str = "") -> str:
    """A number with an SI prefix and three digits: 1.23e15, 'FLOP' -> '1.23 PFLOP'."""
    for factor, prefix in UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def is_share(metric: Mapping[str, Any]) -> bool:
    """Whether a figure reads best in per cent: between 0 and 1, with a chance level."""
    return (
        metric["chance"] is not None and metric["value"] is not None and 0 <= metric["value"] <= 1
    )


def figure_text(metric: Mapping[str, Any] | None) -> str:
    """A figure with what guessing would reach beside it: '31.2 % (chance 1.1)'."""
    if metric is None:
        return "-"
    value, chance = metric["value"], metric["chance"]
    if value is None:
        return "not finite"
    if is_share(metric):
        return f"{100 * value:.1f} % (chance {100 * chance:.2g})"
    return f"{value:.4g}" + ("" if chance is None else f" (chance {chance:.4g})")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def times(factor: float | None) -> str:
    """An acceleration, '-' where there is none."""
    return "-" if factor is None else f"{factor:.2f}x" if factor < 10 else f"{factor:.0f}x"


def growth_text(growth: Mapping[str, Any]) -> str:
    """Whether growing kept the function, why not, and the measured error."""
    kept = growth["function_preserving"]
    text = "keeps the function" if kept else f"does not keep the function: {growth['reason']}"
    return text + ("" if growth["error"] is None else f" (measured error {growth['error']:.1e})")


def plan_table(plan: ChainPlan) -> RenderableType:
    """One row a stage, then one row a sub-chain, where there are any."""
    from rich.console import Group

    return Group(_stage_table(plan), *([_sub_chain_table(plan)] if plan.sub_chains else []))


def _table(title: str | None, *columns: str) -> Table:
    """An empty table, the first column for names, the others for numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    return table


def _stage_table(plan: ChainPlan) -> Table:
    columns = (
        "member",
        "params",
        "growth",
        "a sample",
        "teacher",
        "samples",
        "compute",
        "share",
        "alone",
    )
    table = _table("plan (compute in FLOP)", *columns)
    for stage in plan.stages:
        table.add_row(
            stage.name,
            quantity(stage.params),
            "" if stage.expansion is None else f"{stage.expansion:.1f}x",
            quantity(stage.student_flops),
            quantity(stage.teacher_flops) if stage.teacher_flops else "-",
            f"{stage.samples:,}",
            quantity(stage.flops),
            f"{100 * stage.flops / (plan.flops or 1):.0f} %",
            quantity(stage.alone_flops),
        )
    return table


def _sub_chain_table(plan: ChainPlan) -> Table:
    largest, known = (
        plan.stages[-1].name,
        any(chain.published is not None for chain in plan.sub_chains),
    )
    columns = ("sub-chain", "compute", f"of {largest} alone", *(["published"] if known else []))
    table = _table(None, *columns)
    for chain in plan.sub_chains:
        cells = [chain.name, quantity(chain.flops), f"{100 * chain.relative_compute:.1f} %"]
        if known:
            cells.append("-" if chain.published is None else f"{100 * chain.published:.3g} %")
        table.add_row(*cells)
    return table


def plan_text(plan: ChainPlan) -> str:
    """The totals, and warnings where the chain leaves the paper's rules."""
    if plan.individual:
        return f"every member alone: {quantity(plan.flops, 'FLOP')}"
    largest = plan.stages[-1]
    lines = [f"chain {quantity(plan.flops, 'FLOP')}"]
    if plan.alone_flops:
        times = plan.alone_flops / (plan.flops or 1)
        lines[0] += (
            f"; every member alone {quantity(plan.alone_flops, 'FLOP')} ({times:.2f}x the chain)"
        )
    if plan.first_budget_flops != plan.alone_flops:
        ratio = plan.first_budget_flops / (plan.flops or 1)
        lines.append(
            f"with as many samples as '{plan.stages[0].name}' for every member, alone: "
            f"{quantity(plan.first_budget_flops, 'FLOP')} ({ratio:.2f}x the chain), "
            f"'{largest.name}' only: {quantity(plan.largest_alone_flops, 'FLOP')}"
        )
    if plan.sub_chains:
        lines.append(_sub_chain_rule(plan))
    lines += [
        f"growing '{stage.name}' with {stage.grower} learns on {stage.growth_iters:,} batches: "
        f"{quantity(stage.growth_flops, 'FLOP')}, in its compute"
        for stage in plan.stages
        if stage.growth_iters
    ]
    return "\n".join(lines + [f"warning: {warning}" for warning in plan.warnings])


def prediction_text(prediction: Prediction) -> str:
    """What each grown member should need, and the chain, from runs of members alone."""
    first, *grown = prediction.members
    needs = ", ".join(
        f"'{member.name}' {member.fraction:.2f} ± {member.deviation:.2f}" for member in grown
    )
    return (
        f"predicted from members alone, as shares of their budgets: {needs}; with all of '{first.name}' the chain "
        f"would take {quantity(prediction.flops, 'FLOP')} ± {quantity(prediction.deviation)}, "
        f"{prediction.acceleration:.2f}x ± {prediction.acceleration_deviation:.2f} less than all alone"
    )


def _sub_chain_rule(plan: ChainPlan) -> str:
    """What the figures of sub-chains count, and where the published ones are from."""
    rule = (
        f"sub-chains: the first member of each, like '{plan.stages[-1].name}' alone, on as many samples as "
        f"'{plan.stages[0].name}'; FLOPs of all members, forward and backward of the student and forward of the "
        "teacher, a multiply-add as 2, by torch's counter"
    )
    source = plan.published.get("source")
    return f"{rule}; published: {source}" if source else rule
