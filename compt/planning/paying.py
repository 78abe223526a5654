"""Say where a planned chain will hardly pay, by what its plan alone tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compt.planning.fading import FROM_END
from compt.planning.plans import ChainPlan, StagePlan

SMALL_STEP = 1.5
"""Growth in parameters below which a member costs about as much as its source."""
LONG = 0.85
"""Share of its training alone from which on hardly anything is saved.

See :data:`compt.planning.fading.FROM_END`.
"""
DEAR_TEACHER = 1 / 3
"""Share of a stage's compute that is much for a teacher."""


@dataclass(frozen=True)
class Doubt:
    """One reason why a chain may not pay."""

    what: str
    """What the plan says."""
    why: str
    """Why that speaks against the chain, and what could be changed."""


def doubts(plan: ChainPlan) -> list[Doubt]:
    """Return what speaks against a chain.

    None is no promise: whether members get good enough in their budgets, only training tells.
    """
    if plan.individual:
        return []
    if len(plan.stages) == 1:
        return [Doubt("There is one member.", "Nothing is grown, so nothing is saved.")]
    compared = not same_lengths(plan)
    of_stages = [doubt for stage in plan.stages for doubt in _of_stage(stage, compared)]
    return [*_of_chain(plan), *of_stages]


def same_lengths(plan: ChainPlan) -> bool:
    """Tell whether members alone are trained for as long as in the chain.

    Such a comparison is about quality: every chain costs more then, as it has teachers beside.
    """
    return all(stage.alone_samples == stage.samples for stage in plan.stages)


def _of_chain(plan: ChainPlan) -> Iterator[Doubt]:
    first, last = plan.stages[0], plan.stages[-1]
    if same_lengths(plan) or not plan.alone_flops:
        return
    if plan.flops >= plan.alone_flops:
        yield Doubt(
            f"The chain takes {plan.flops / plan.alone_flops:.2f} times the compute of all members "
            "alone.",
            "It saves nothing at these budgets. Grown members are meant to need a part of their "
            "own training: a quarter of it or less in the paper (arXiv 2604.12391).",
        )
    if first.flops >= last.alone_flops > 0:
        yield Doubt(
            f"'{first.name}' takes as much compute as '{last.name}' alone.",
            "For that compute the largest member could be trained without a chain. Shorten the "
            "first member, or leave it out.",
        )


def _of_stage(stage: StagePlan, compared: bool) -> Iterator[Doubt]:
    """Yield what speaks against one hop.

    Args:
        stage: of its target.
        compared: whether the chain is compared with members trained for another length.
    """
    if stage.expansion is None:
        return
    if stage.expansion < SMALL_STEP:
        yield Doubt(
            f"'{stage.name}' is {stage.expansion:.2f} times as large as the member before it.",
            "It costs about as much as its source for each sample, and every hop costs some "
            "training to recover from; leave one of the two out, unless both are wanted.",
        )
    alone = stage.alone_samples
    if compared and alone and stage.samples > LONG * alone:
        yield Doubt(
            f"'{stage.name}' is trained for {stage.samples / alone:.0%} of what it has alone.",
            "That long a stage overwrites nearly all that the source is worth: "
            f"{FROM_END} of it, times its share of the training alone, "
            "in the hops measured (docs/study.md). At this length hardly anything is saved.",
        )
    teacher = stage.batch_size * stage.teacher_iters * stage.teacher_flops
    if teacher > DEAR_TEACHER * stage.flops > 0:
        yield Doubt(
            f"The teacher takes {teacher / stage.flops:.0%} of the compute of '{stage.name}'.",
            "The same compute would train the student for longer. transfer=dict(..., until=0.3) "
            "switches the teacher off after that part of the stage.",
        )
