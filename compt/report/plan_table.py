"""Show a plan, and what is predicted of it, as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

from compt.registry.registry import short_name
from compt.report.format import quantity, quiet_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from compt.planning.plans import ChainPlan, StagePlan, SubChain
    from compt.report.prediction import Prediction

STAGE_COLUMNS = (
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


def plan_table(plan: ChainPlan) -> RenderableType:
    """Return one row a stage, then one row a sub-chain, where there are any."""
    from rich.console import Group

    return Group(_stage_table(plan), *([_sub_chain_table(plan)] if plan.sub_chains else []))


def plan_text(plan: ChainPlan) -> str:
    """Return the totals, and warnings where the chain leaves the paper's rules."""
    if plan.individual:
        total = f"every member alone: {quantity(plan.flops, 'FLOP')}"
        return "\n".join([total, *_width_rates(plan)])
    return "\n".join(_sentences(plan))


def prediction_text(prediction: Prediction) -> str:
    """Return what each grown member should need, and the chain, from members alone."""
    first, *grown = prediction.members
    needs = ", ".join(
        f"'{member.name}' {member.fraction:.2f} ± {member.deviation:.2f}" for member in grown
    )
    return (
        f"predicted from members alone, as shares of their budgets: {needs}; "
        f"with all of '{first.name}' the chain would take "
        f"{quantity(prediction.flops, 'FLOP')} ± {quantity(prediction.deviation)}, "
        f"{prediction.acceleration:.2f}x ± {prediction.acceleration_deviation:.2f} "
        "less than all alone"
    )


def _stage_table(plan: ChainPlan) -> Table:
    table = quiet_table("plan (compute in FLOP)", STAGE_COLUMNS)
    for stage in plan.stages:
        table.add_row(*_stage_cells(stage, plan.flops))
    return table


def _stage_cells(stage: StagePlan, total_flops: float) -> tuple[str, ...]:
    return (
        stage.name,
        quantity(stage.params),
        "" if stage.expansion is None else f"{stage.expansion:.1f}x",
        quantity(stage.student_flops),
        quantity(stage.teacher_flops) if stage.teacher_flops else "-",
        f"{stage.samples:,}",
        quantity(stage.flops),
        f"{100 * stage.flops / (total_flops or 1):.0f} %",
        quantity(stage.alone_flops),
    )


def _sub_chain_table(plan: ChainPlan) -> Table:
    published = any(chain.published is not None for chain in plan.sub_chains)
    columns = ["sub-chain", "compute", f"of {plan.stages[-1].name} alone"]
    table = quiet_table(None, [*columns, *(["published"] if published else [])])
    for chain in plan.sub_chains:
        table.add_row(*_sub_chain_cells(chain), *([_published(chain)] if published else []))
    return table


def _sub_chain_cells(chain: SubChain) -> tuple[str, ...]:
    return chain.name, quantity(chain.flops), f"{100 * chain.relative_compute:.1f} %"


def _published(chain: SubChain) -> str:
    return "-" if chain.published is None else f"{100 * chain.published:.3g} %"


def _sentences(plan: ChainPlan) -> Iterator[str]:
    yield _totals(plan)
    if plan.first_budget_flops != plan.alone_flops:
        ratio = plan.first_budget_flops / (plan.flops or 1)
        yield (
            f"with as many samples as '{plan.stages[0].name}' for every member, alone: "
            f"{quantity(plan.first_budget_flops, 'FLOP')} ({ratio:.2f}x the chain), "
            f"'{plan.stages[-1].name}' only: {quantity(plan.largest_alone_flops, 'FLOP')}"
        )
    if plan.sub_chains:
        yield _sub_chain_rule(plan)
    for stage in plan.stages:
        if stage.growth_iters:
            yield (
                f"growing '{stage.name}' with {short_name(stage.grower or '')} learns on "
                f"{stage.growth_iters:,} batches: {quantity(stage.growth_flops, 'FLOP')}, "
                "in its compute"
            )
    for stage in plan.stages:
        if stage.lr_mult != 1:
            share = stage.samples / (stage.alone_samples or stage.samples)
            yield (
                f"'{stage.name}' is trained at {stage.lr_mult:.3g} of its own learning rate, on "
                f"{share:.3g} of its budget alone"
            )
    yield from _frozen(plan)
    yield from _width_rates(plan)
    yield from _trunks(plan)
    yield from (f"warning: {warning}" for warning in plan.warnings)


def _frozen(plan: ChainPlan) -> Iterator[str]:
    """Say how much of each member is not trained, how long, and what that saves."""
    for stage in plan.stages:
        frozen = stage.frozen
        if frozen is None:
            continue
        until = "" if frozen.iters >= stage.iters else f" for {frozen.iters:,} iterations"
        saved = quantity(stage.saved_until(stage.iters), "FLOP")
        yield (
            f"frozen: {len(frozen.names)} parameters of '{stage.name}' with "
            f"{quantity(frozen.num_values)} of its {quantity(stage.params)} values{until}; that "
            f"saves {saved}, which its compute leaves out"
        )


def _width_rates(plan: ChainPlan) -> Iterator[str]:
    """Say how many parameters of each member have another rate than is written."""
    for stage in plan.stages:
        rates = stage.width_rates
        if rates is None or rates.base == stage.name:
            continue
        numbers = [*rates.num_by_factor.items(), (1, rates.num_others)]
        counts = ", ".join(f"{count} x {rate:.3g}" for rate, count in numbers)
        unclear = f" ({rates.num_unclear} read widths that '{rates.base}' lacks)"
        yield (
            f"rates by width, relative to '{rates.base}': '{stage.name}' has parameters "
            f"{counts}{unclear if rates.num_unclear else ''}"
        )


def _trunks(plan: ChainPlan) -> Iterator[str]:
    """Say which members grow from a plateau, and from which iteration of it."""
    for stage, following in zip_longest(plan.stages, plan.stages[1:]):
        if stage.plateau_iter is None:
            continue
        at = f"as it is after iteration {stage.plateau_iter:,} of {stage.iters:,}"
        stop = "before its decay" if stage.plateau_iter < stage.iters else "before averaging"
        if following is None:
            yield f"trunk: '{stage.name}' is kept {at}, for a member that is appended later"
        else:
            yield f"trunk: '{following.name}' grows from '{stage.name}' {at}, {stop}"


def _totals(plan: ChainPlan) -> str:
    chain = f"chain {quantity(plan.flops, 'FLOP')}"
    if not plan.alone_flops:
        return chain
    ratio = plan.alone_flops / (plan.flops or 1)
    alone = quantity(plan.alone_flops, "FLOP")
    return f"{chain}; every member alone {alone} ({ratio:.2f}x the chain)"


def _sub_chain_rule(plan: ChainPlan) -> str:
    """Return what is counted for sub-chains, and where the published values are from."""
    rule = (
        f"sub-chains: the first member of each, like '{plan.stages[-1].name}' alone, "
        f"on as many samples as '{plan.stages[0].name}'; FLOPs of all members, forward and "
        "backward of the student and forward of the teacher, a multiply-add as 2, "
        "by torch's counter"
    )
    source = plan.published.get("source")
    return f"{rule}; published: {source}" if source else rule
