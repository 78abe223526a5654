"""Plan pilots that together take a part of a family's compute."""

from __future__ import annotations

from dataclasses import dataclass

from compt.config import ChainConfig, load_config
from compt.errors import ConfigError
from compt.planning.auto import alone_amount
from compt.planning.planner import plan

HALVINGS = (1.0, 0.5, 0.25)
"""Lengths of the pilots, relative to the longest."""
EVALUATIONS = 8
"""Of a pilot; the shortest has to have more iterations."""
SHORTEST = 16
"""Iterations that a pilot has at least."""


@dataclass(frozen=True)
class PilotPlan:
    """Every member alone at one length."""

    config: ChainConfig
    iters: tuple[int, ...]
    """By member."""
    flops: float
    alone_flops: float
    """Of all members alone at their own length."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{max(self.iters)}_iters"


def pilot_plans(config: ChainConfig, fraction: float) -> list[PilotPlan]:
    """Return pilots of lengths that halve, the longest first.

    Args:
        config: of the family.
        fraction: of the compute of all members alone that they take together, at most.

    Raises:
        ConfigError: it is no fraction, or leaves pilots too short to say anything.
    """
    if not 0 < fraction < 1:
        raise ConfigError(
            f"--pilot-budget {fraction:g} is no part of the members' compute alone.",
            do="Above 0 and below 1, for example 0.1.",
        )
    alone = plan(config, individual=True)
    unit, number = alone_amount(config)
    plans = []
    for relative in HALVINGS:
        length = number * relative * fraction / sum(HALVINGS)
        shortest = min(stage.iters for stage in alone.stages) * length / number
        if shortest < SHORTEST:
            least = fraction * SHORTEST / shortest * relative / HALVINGS[-1]
            enough = f"Give {least:.2g} or more, or train" if least < 1 else "Train"
            raise ConfigError(
                f"--pilot-budget {fraction:g} leaves a pilot of {shortest:.0f} iterations, and "
                f"fewer than {SHORTEST} say nothing.",
                do=f"{enough} members alone for longer.",
            )
        budget = {unit: int(length) if unit == "iters" else length}
        pilot = load_config({**config.raw, "individual": budget, "evaluations": EVALUATIONS})
        planned = plan(pilot, individual=True)
        iters = tuple(stage.iters for stage in planned.stages)
        plans.append(PilotPlan(pilot, iters, planned.flops, alone.flops))
    return plans
