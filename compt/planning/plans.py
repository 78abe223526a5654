"""Say in numbers what a chain and its stages will do and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compt.config.options import sub_chain_names
from compt.growth.width_rates import WidthRates


@dataclass(frozen=True)
class Frozen:
    """Parameters that a stage does not train."""

    names: tuple[str, ...]
    num_values: int
    """In them."""
    iters: int
    """Iterations for which that is so."""
    saved_flops: float
    """What is not computed meanwhile of forward and backward, a sample."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage will do and cost.

    FLOPs count a multiply-add as 2, as torch's flop counter does.
    """

    name: str
    index: int
    params: int
    grower: str | None
    """None where nothing is grown."""
    transfer: str | None
    """None where no teacher is run."""
    batch_size: int
    iters: int
    samples: int
    teacher_iters: int
    """Iterations at which the teacher is run."""
    student_flops: float
    """Forward and backward, a sample."""
    teacher_flops: float
    """Forward, a sample; 0 without a teacher."""
    alone_samples: int
    """Samples of the same member trained alone, from scratch."""
    expansion: float | None
    """Parameters relative to the member before."""
    growth_iters: int = 0
    """Batches on which a grower that learns asks for the loss before the stage."""
    lr_mult: float = 1.0
    """Peak learning rate relative to the member's own, as a grown one."""
    width_rates: WidthRates | None = None
    """Rates of single parameters relative to the member's, None where all have the same."""
    plateau_iter: int | None = None
    """Iterations after which the weights are kept that the next member grows from.

    None where that are the delivered ones.
    """
    first_samples: int = 0
    """Samples of the chain's first stage, which the paper's recipe gives to members alone."""
    frozen: Frozen | None = None
    """Parameters that are not trained, None where all are."""

    @property
    def flops(self) -> float:
        """FLOPs of the whole stage, learned growth and teacher passes charged."""
        return self.flops_until(self.iters)

    def flops_until(self, iteration: int) -> float:
        """Return the FLOPs from the start of the stage, growth included, to an iteration."""
        teacher_iters = min(iteration, self.teacher_iters)
        per_sample = iteration * self.student_flops + teacher_iters * self.teacher_flops
        return self.growth_flops + self.batch_size * per_sample - self.saved_until(iteration)

    def saved_until(self, iteration: int, repeated: int = 0) -> float:
        """Return the FLOPs that frozen parameters save from the start of the stage.

        Args:
            iteration: until there.
            repeated: further iterations that were trained and lost, which save as much where
                nothing is trained later.
        """
        if self.frozen is None:
            return 0.0
        iters = min(iteration, self.frozen.iters)
        iters += repeated if self.frozen.iters >= self.iters else 0
        return iters * self.batch_size * self.frozen.saved_flops

    @property
    def growth_flops(self) -> float:
        """FLOPs of learned growth, as much as that many training steps."""
        return self.growth_iters * self.batch_size * self.student_flops

    @property
    def alone_flops(self) -> float:
        """FLOPs of the same member trained alone."""
        return self.alone_samples * self.student_flops


@dataclass(frozen=True)
class SubChain:
    """The last members of a chain, as a chain whose first member is trained in full."""

    name: str
    """The members' names, joined by '->'."""
    flops: float
    relative_compute: float
    """Relative to the largest member alone, trained in full."""
    published: float | None
    """The same as a publication gives it."""


@dataclass(frozen=True)
class ChainPlan:
    """All stages of a chain, with warnings where it leaves the paper's rules."""

    stages: tuple[StagePlan, ...]
    warnings: tuple[str, ...] = ()
    individual: bool = False
    """Whether every member is trained alone, from scratch."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """What a publication says, as ``source`` and ``relative_compute`` by sub-chain."""

    @property
    def flops(self) -> float:
        """FLOPs of the whole family, as a chain."""
        return sum(stage.flops for stage in self.stages)

    @property
    def alone_flops(self) -> float:
        """FLOPs of the whole family, every member trained alone with the individual budget."""
        return sum(stage.alone_flops for stage in self.stages)

    @property
    def first_budget_flops(self) -> float:
        """FLOPs of the whole family, every member alone on as many samples as the first."""
        return sum(stage.first_samples * stage.student_flops for stage in self.stages)

    @property
    def largest_alone_flops(self) -> float:
        """FLOPs of the largest member, trained alone on as many samples as the first."""
        return self.stages[-1].first_samples * self.stages[-1].student_flops

    @property
    def sub_chains(self) -> tuple[SubChain, ...]:
        """Every chain that ends with the largest member, the longest first.

        The first member of each is trained as the whole chain's first one is: alone, on as many
        samples. The others are trained as in the whole chain. All members and all teacher passes
        are charged.
        """
        alone = self.largest_alone_flops
        if self.individual or not alone:
            return ()
        published = self.published.get("relative_compute") or {}
        chains = []
        for index, name in enumerate(sub_chain_names([stage.name for stage in self.stages])):
            first, *others = self.stages[index:]
            flops = first.first_samples * first.student_flops + sum(s.flops for s in others)
            chains.append(SubChain(name, flops, flops / alone, published.get(name)))
        return tuple(chains)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain types."""
        stages = [
            {
                **asdict(s),
                "flops": s.flops,
                "alone_flops": s.alone_flops,
                "share": s.flops / (self.flops or 1),
            }
            for s in self.stages
        ]
        return {
            "stages": stages,
            "flops": self.flops,
            "alone_flops": self.alone_flops,
            "acceleration": self.alone_flops / self.flops if self.flops else None,
            "first_budget_flops": self.first_budget_flops,
            "largest_alone_flops": self.largest_alone_flops,
            "sub_chains": [asdict(sub_chain) for sub_chain in self.sub_chains],
            "published": self.published.get("source"),
            "warnings": list(self.warnings),
        }
