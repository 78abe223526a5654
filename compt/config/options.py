"""Declare the small sections of a config, such as budgets and performance options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from compt.config.averages import AVERAGES, Average
from compt.config.faults import Faults
from compt.config.keys import Section, key
from compt.errors import did_you_mean

MAX_ITERS = 10**12
"""Longest stage: at a millisecond an iteration, thirty years."""
BUDGET_UNITS = ("epochs", "iters", "samples")


def _amount(help: str, maximum: float) -> Any:
    return key(None, help=help, positive=True, zero_is_judged=True, maximum=maximum)


@dataclass(frozen=True)
class Budget(Section):
    """How long something is trained, in exactly one unit."""

    epochs: float | None = _amount("passes over the training data", 1e12)
    iters: int | None = _amount("iterations", MAX_ITERS)
    samples: float | None = _amount("training samples", 1e18)

    @property
    def amount(self) -> tuple[str, float]:
        """The unit that is given, and its number."""
        return next(iter(self.amounts.items()), ("iters", 0))

    @property
    def amounts(self) -> dict[str, float]:
        """All units that are given, with their numbers."""
        numbers = {unit: getattr(self, unit) for unit in BUDGET_UNITS}
        return {unit: number for unit, number in numbers.items() if number is not None}


@dataclass(frozen=True)
class IndividualBudget(Budget):
    """The budget of every member that is trained alone."""

    budget: Literal["chain"] | None = key(None, help="`'chain'`: each member's own in the chain")

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note that no budget is given, or several are, or one of nothing."""
        name = where.rstrip(".")
        choices = dict(self.amounts)
        if self.budget is not None:
            choices["budget"] = 0.0
        if len(choices) != 1 and not at_fault:
            given = ", ".join(choices) or "nothing"
            faults.add(
                f"{name}: give one of dict(epochs=...), dict(iters=...), dict(samples=...), "
                f"dict(budget='chain'); it has {given}."
            )
        for unit, number in self.amounts.items():
            if not number:
                faults.add(f"{name}.{unit}: {number!r} is not a positive number.")


@dataclass(frozen=True)
class CheckpointOptions(Section):
    """When a stage saves what a resumed run goes on from."""

    interval: int = key(500, help="iterations between two checkpoints", minimum=1)
    keep: int = key(2, help="checkpoints to keep", minimum=1)
    asynchronous: bool = key(
        False,
        help="`True`: training waits until a checkpoint is copied to memory of the CPU, which a "
        "second copy of weights and optimizer has to fit into, and a thread writes it",
    )
    optimizer: bool = key(
        False,
        help="`True`: keep what the last member's optimizer remembers, so that a member appended "
        "later can inherit it (`grown.optimizer_state`)",
    )


@dataclass(frozen=True)
class GuardOptions(Section):
    """What a stage does about losses that leap or are not finite."""

    spike: float = key(
        10.0,
        help="a loss so many robust standard deviations above the median of the last `window` "
        "losses is a spike. Spikes are always reported",
        positive=True,
    )
    window: int = key(
        100, help="losses that a new one is compared with", minimum=20, maximum=100_000
    )
    retries: int = key(
        0,
        help="how often a stage returns to its last good checkpoint after a spike, or a loss or "
        "weight that is not finite, leaves out the batches since, and goes on. After that, what is "
        "not finite ends the stage, and spikes are reported alone",
        minimum=0,
        maximum=1000,
    )


def _check_rates(value: float | Mapping[Any, Any], name: str, faults: Faults) -> None:
    """Note a rate by share that is none."""
    if not isinstance(value, Mapping):
        return
    if not value:
        faults.add(f"{name}: it has no rate.")
    for share, rate in value.items():
        if not (_is_positive(as_number(share)) and _is_positive(rate)):
            faults.add(
                f"{name}: {share!r}: {rate!r} is not a share of the budget alone with a rate, both "
                "positive numbers."
            )


def as_number(share: Any) -> Any:
    """Return a key of a dict as the number that it is, also where JSON has made a string of it."""
    try:
        return float(share) if isinstance(share, str) else share
    except ValueError:
        return share


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


@dataclass(frozen=True)
class GrownOptions(Section):
    """How a grown member is trained otherwise than one from scratch."""

    lr_mult: float | Mapping[Any, Any] = key(
        1.0,
        help="peak learning rate relative to the member's own; by the length of the stage with "
        "`{0.125: 0.5, 0.5: 1.0}`, shares of the budget alone (`individual`) with a rate each, "
        "between which the rate's logarithm follows the share's",
        positive=True,
        check=_check_rates,
    )
    new_lr_mult: float | None = key(
        None,
        help="that of entries which hold nothing of the source, relative to the member's own: the "
        "outside of a copied corner, rows of new heads and units, new output columns. Which they "
        "are is found by growing from a source with other values. Steps of these entries are "
        "scaled, weight decay included",
        positive=True,
        shown_default="as `lr_mult`",
    )
    warmup: float | None = key(
        None,
        help="share of the stage over which the rate warms up, in the place of that in the first "
        "entry of `param_scheduler`; what begins where that ends moves along, and 0 leaves it out",
        minimum=0,
        maximum=1,
        shown_default="as from scratch",
    )
    new_warmup: float | None = key(
        None,
        help="share of the stage over which the rate of those entries alone rises from 0 to what "
        "it is else, `new_lr_mult` and the schedule's own warm-up included (SPARKLING, arXiv "
        "2602.02472)",
        positive=True,
        maximum=1,
        shown_default="none",
    )
    decay: bool = key(
        True,
        help="`False`: the last entry of `param_scheduler`, by which the rate falls, is left out, "
        "so that grown members are trained at the full rate to their end. Give them an `average` "
        "to deliver then; see [below](#from-plateau-to-plateau)",
    )
    average: Average | None = key(
        None,
        help="what grown members deliver, as `average` of a stage",
        variants=AVERAGES,
        shown_default="`average` of the stage",
    )
    optimizer_state: bool = key(
        False,
        help="`True`: start with the source's optimizer state, grown along the weights: moments "
        "follow the gradient (its square), step counts are kept, new blocks start anew. Exact for "
        "tilings, up to a factor a tensor elsewhere (Adam's steps do not see it). For Adam, AdamW "
        "and SGD, and growers that work tensor by tensor",
    )

    def rate(self, share: float) -> float:
        """Return the peak rate relative to the member's own.

        Args:
            share: length of the stage relative to the member's budget alone.
        """
        if not isinstance(self.lr_mult, Mapping):
            return self.lr_mult
        rates = {as_number(known): rate for known, rate in self.lr_mult.items()}
        shares = sorted(rates)
        if share <= shares[0]:
            return float(rates[shares[0]])
        for below, above in pairwise(shares):
            if share <= above:
                way = math.log(share / below) / math.log(above / below)
                return float(rates[below] * (rates[above] / rates[below]) ** way)
        return float(rates[shares[-1]])

    def new_ratio(self, rate: float) -> float:
        """Return the rate of new entries relative to that of inherited ones.

        Args:
            rate: of inherited ones relative to the member's own.
        """
        return 1.0 if self.new_lr_mult is None else self.new_lr_mult / rate

    @property
    def has_rate_of_new(self) -> bool:
        """Whether new entries have a rate of their own, at least for a while."""
        is_another = self.new_lr_mult is not None and self.new_lr_mult != self.lr_mult
        return is_another or self.new_warmup is not None


def check_compile(value: Any, name: str, faults: Faults) -> None:
    """Note options that torch.compile does not have."""
    if not isinstance(value, Mapping):
        return
    import torch

    options = set(inspect.signature(torch.compile).parameters) - {"model"}
    for option in set(value) - options:
        near = did_you_mean(option, options)
        faults.add(f"{name}: {option!r} is no option of torch.compile.{near}")


@dataclass(frozen=True)
class PerformanceOptions(Section):
    """What makes training cheaper without changing what is trained."""

    precision: Literal["fp32", "bf16"] = key(
        "fp32",
        help="`'bf16'`: student, teacher and losses under autocast, also on a CPU; weights and "
        "optimizer stay float32",
    )
    grad_checkpointing: bool = key(
        False,
        help="`True`: every block recomputes its activations in the backward pass (not counted in "
        "FLOPs)",
    )
    mini_batch_size: int | None = key(
        None,
        minimum=2,
        help="student and teacher run so many samples of a process's batch at a time, and "
        "activations are kept for no more; losses, also contrastive ones, are over the whole "
        "batch. Costs a second forward pass (not counted in FLOPs)",
    )
    compile: bool | Mapping[str, Any] = key(
        False, help="`True`, or a dict of `torch.compile`'s options", check=check_compile
    )
    attention: Literal["auto", "flash", "efficient", "cudnn", "math"] = key(
        "auto",
        help="kernel of `scaled_dot_product_attention`: `'flash'`, `'efficient'`, `'cudnn'`, "
        "`'math'`; `'auto'` lets torch choose",
    )

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note the one backend that gives other results when blocks are recomputed."""
        eager = isinstance(self.compile, Mapping) and self.compile.get("backend") == "eager"
        if self.grad_checkpointing and eager:
            faults.add(
                f"{where.rstrip('.') or 'compile'}: with backend='eager' recomputed blocks drop "
                "other units; use backend='aot_eager'."
            )


@dataclass(frozen=True)
class CustomImports(Section):
    """Modules to import first, which register a config's own plug-ins."""

    imports: Any = key(None, help="names of modules")
    allow_failed_imports: bool = key(False, help="whether a module may be missing")


@dataclass(frozen=True)
class Published(Section):
    """What a publication reports for this chain."""

    source: str | None = key(None, help="where it is published, such as 'arXiv 2604.12391'")
    relative_compute: Mapping[str, Any] = key(
        {}, help="compute relative to the largest member alone, by sub-chain ('a->b->c': 0.28)"
    )


@dataclass(frozen=True)
class CardOptions(Section):
    """What the model cards of a chain's exports say beside what compt knows."""

    title: str | None = key(None, help="the card's title", shown_default="chain/member")
    license: str | None = key(
        None, help="of the weights, by Hugging Face's name for it: 'apache-2.0', 'cc-by-4.0'"
    )
    license_name: str | None = key(None, help="for license='other': its name")
    license_link: str | None = key(None, help="for license='other': its address")
    language: str | Sequence[str] | None = key(None, help="codes such as 'en'")
    datasets: str | Sequence[str] | None = key(None, help="their names on the Hugging Face Hub")
    tags: Sequence[str] = key([], help="beside compt's own")
    base_model: str | None = key(
        None, help="the Hub's name of what the first member started from (`init`)"
    )


def sub_chain_names(members: Sequence[str]) -> tuple[str, ...]:
    """Name the chains that end with the last member, as 'a->b->c' and 'b->c' of a, b, c."""
    return tuple("->".join(members[i:]) for i in range(len(members) - 1))
