"""Explain every number of a plan, with its formula and what went into it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from compt.report.format import quantity

if TYPE_CHECKING:
    from compt.planning.paying import Doubt
    from compt.planning.plans import ChainPlan, StagePlan

INDENT = "    "
RULES = (
    "A step of 2 to 4 times in parameters is what the paper's chains keep (arXiv 2604.12391, rule "
    "ii); smaller steps add stages that bring little, larger ones were not tried there.",
    "Samples fall along the chain in the paper, as each member begins with more.",
    "Heads of another width cannot be inherited: their scores mean something else.",
)
"""The reasons of warnings."""


def explained(plan: ChainPlan, width: int = 100) -> str:
    """Return what every number of a plan's tables says, and how it comes about.

    Args:
        plan: of a chain.
        width: characters of a line.
    """
    sections = [
        ("params", _params(plan.stages)),
        ("growth", _growth(plan.stages)),
        ("a sample", _sample(plan.stages)),
        ("teacher", _teacher(plan)),
        ("samples", _samples(plan.stages)),
        ("compute", _compute(plan.stages)),
        ("share", _share(plan)),
        ("alone", _alone(plan)),
        ("totals", _totals(plan)),
        ("sub-chains", _sub_chains(plan)),
        ("warnings", RULES if plan.warnings else ()),
    ]
    blocks = ((name, list(lines)) for name, lines in sections)
    return "\n".join(_block(name, lines, width) for name, lines in blocks if lines)


def doubts_text(doubts: Sequence[Doubt], *, with_reasons: bool) -> str:
    """Return what speaks against a chain, a line each, with the reasons where they are asked for.

    Args:
        doubts: of a plan.
        with_reasons: whether to say why.
    """
    return "\n".join(
        f"may not pay: {doubt.what}{f' {doubt.why}' if with_reasons else ''}" for doubt in doubts
    )


def _block(name: str, lines: Iterable[str], width: int) -> str:
    """Return some lines under a heading, wrapped and indented."""
    wrapped = (
        textwrap.fill(line, width, initial_indent=INDENT, subsequent_indent=2 * INDENT)
        for line in lines
    )
    return "\n".join([name, *wrapped])


def _params(stages: Sequence[StagePlan]) -> Iterator[str]:
    yield "Numbers that are trained, counted in the model as it is built; tied ones count once."
    yield ", ".join(f"{stage.name} {stage.params:,}" for stage in stages)


def _growth(stages: Sequence[StagePlan]) -> Iterator[str]:
    if len(stages) > 1:
        yield "Parameters, divided by those of the member before."
    for previous, stage in pairwise(stages):
        ratio = stage.params / previous.params
        yield f"{stage.name}: {stage.params:,} / {previous.params:,} = {ratio:.2f}"


def _sample(stages: Sequence[StagePlan]) -> Iterator[str]:
    yield (
        "Compute of one training sample, forward and backward: torch's counter adds up the matrix "
        "products, convolutions and attention of one batch, a multiply-add as 2, and the sum is "
        "divided by the batch. About 6 FLOP a weight and position, as backward is twice forward."
    )
    yield ", ".join(
        f"{stage.name} {quantity(stage.student_flops, 'FLOP')} (batch {stage.batch_size:,})"
        for stage in stages
    )


def _teacher(plan: ChainPlan) -> Iterator[str]:
    taught = [stage for stage in plan.stages if stage.teacher_iters]
    if taught:
        yield "Compute of a sample's forward pass through the member before, as far as it is read."
    for stage in taught:
        yield (
            f"{stage.name}: {quantity(stage.teacher_flops, 'FLOP')} by {stage.transfer}, in "
            f"{stage.teacher_iters:,} of {stage.iters:,} iterations"
        )


def _samples(stages: Sequence[StagePlan]) -> Iterator[str]:
    yield "Samples that are trained on, those seen again counted again: iterations x batch."
    for stage in stages:
        yield f"{stage.name}: {stage.iters:,} x {stage.batch_size:,} = {stage.samples:,}"


def _compute(stages: Sequence[StagePlan]) -> Iterator[str]:
    yield "Samples x a sample, and samples with a teacher x teacher; learned growth beside."
    for stage in stages:
        terms = [f"{stage.samples:,} x {quantity(stage.student_flops)}"]
        if stage.teacher_iters:
            taught = stage.teacher_iters * stage.batch_size
            terms.append(f"{taught:,} x {quantity(stage.teacher_flops)}")
        if stage.growth_iters:
            terms.append(f"{quantity(stage.growth_flops)} for growth")
        saved = ""
        if stage.frozen is not None:
            frozen = stage.frozen.iters * stage.batch_size
            saved = f" - {frozen:,} x {quantity(stage.frozen.saved_flops)} for what is frozen"
        yield f"{stage.name}: {' + '.join(terms)}{saved} = {quantity(stage.flops, 'FLOP')}"


def _share(plan: ChainPlan) -> Iterator[str]:
    yield f"The stage's compute, of the chain's {quantity(plan.flops, 'FLOP')}."


def _alone(plan: ChainPlan) -> Iterator[str]:
    if plan.individual:
        return
    yield (
        "Compute of the same member trained from scratch, without a teacher, for the budget in "
        "individual=dict(...): its samples x a sample."
    )
    for stage in plan.stages:
        yield (
            f"{stage.name}: {stage.alone_samples:,} x {quantity(stage.student_flops)} = "
            f"{quantity(stage.alone_flops, 'FLOP')}"
        )


def _totals(plan: ChainPlan) -> Iterator[str]:
    parts = " + ".join(quantity(stage.flops) for stage in plan.stages)
    yield f"chain: {parts} = {quantity(plan.flops, 'FLOP')}, every stage charged"
    if plan.individual or not plan.alone_flops:
        return
    parts = " + ".join(quantity(stage.alone_flops) for stage in plan.stages)
    yield f"every member alone: {parts} = {quantity(plan.alone_flops, 'FLOP')}"
    yield (
        f"ratio: {quantity(plan.alone_flops)} / {quantity(plan.flops)} = "
        f"{plan.alone_flops / (plan.flops or 1):.2f}. It compares compute, not quality: whether "
        "grown members are as good as alone, only training both tells (--individual)."
    )


def _sub_chains(plan: ChainPlan) -> Iterator[str]:
    if not plan.sub_chains:
        return
    last = plan.stages[-1]
    yield (
        f"The last members as a chain of their own, whose first is trained like '{last.name}' "
        f"alone: on {last.first_samples:,} samples. Per cent of '{last.name}' alone, "
        f"{last.first_samples:,} x {quantity(last.student_flops)} = "
        f"{quantity(plan.largest_alone_flops, 'FLOP')}."
    )
    for chain in plan.sub_chains:
        yield f"{chain.name}: {quantity(chain.flops, 'FLOP')}, {100 * chain.relative_compute:.1f} %"
