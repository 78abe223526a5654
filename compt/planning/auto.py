"""Design a chain for a family, from what pilots of its members measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compt.config import ChainConfig, StageConfig, load_config
from compt.config.options import BUDGET_UNITS
from compt.config.rates import decay_begin
from compt.errors import ConfigError, did_you_mean
from compt.planning.design import SHORT, SHORT_RATE, Candidate, Family
from compt.planning.fading import FROM_END, FROM_PLATEAU, Fading
from compt.planning.forecast import Forecast, forecast
from compt.planning.law import Curve, Laws, fit
from compt.planning.lengths import Lengths
from compt.planning.planner import plan
from compt.planning.plans import ChainPlan
from compt.planning.rates import Schedule

NOT_TAKEN_OVER = ("published", "work_dir")
"""Keys of the family's config that do not hold for the chain that is designed."""


@dataclass(frozen=True)
class AutoPlan:
    """A chain as designed."""

    forecast: Forecast
    content: Mapping[str, Any]
    """Its config, as plain types."""
    plan: ChainPlan
    """Of that config."""


def check_family(config: ChainConfig) -> None:
    """Raise ConfigError for a config whose members cannot be compared with members alone."""
    first = config.stages[0]
    fault = do = ""
    if len(config.stages) < 2:
        fault, do = "There is one member, so there is no chain to design.", "Give two or more."
    elif first.init:
        fault = f"'{first.name}' starts from {first.init}, and pilots start from scratch."
        do = "Leave init out, or choose budgets by compt plan CONFIG."
    elif config.individual is not None and config.individual.budget == "chain":
        fault = "Members alone are trained for as long as in the chain, which is to be designed."
        do = "Say how long they are trained alone, for example individual=dict(iters=1000)."
    if fault:
        raise ConfigError(fault, where=config.where, do=do)


def alone_amount(config: ChainConfig) -> tuple[str, float]:
    """Return how long every member is trained alone, as unit and number."""
    return (config.individual or config.stages[0]).amount


def design(
    config: ChainConfig,
    curves: Mapping[str, Sequence[Curve]],
    *,
    pilot_flops: float = 0.0,
    wanted: Collection[str] | None = None,
) -> AutoPlan:
    """Design the chain that takes least compute to members as good as alone.

    Args:
        config: of the family; the budgets of its chain are not read.
        curves: pilots by member.
        pilot_flops: what they took.
        wanted: names of the members that are wanted; all where None.

    Raises:
        ComptError: a name is none, or the family cannot be planned.
    """
    check_family(config)
    names = [stage.name for stage in config.stages]
    chosen = names if wanted is None else list(wanted)
    for name in chosen:
        if name not in names:
            near = did_you_mean(name, names)
            raise ConfigError(f"There is no member '{name}'.{near}", where=config.where)
    if len(chosen) < len(names) and config.rates_by_width is not None:
        raise ConfigError(
            "Members that are not wanted may be left out, and rates_by_width counts from one.",
            where=config.where,
            do="Write the learning rates out, or want all members.",
        )
    alone = plan(config, individual=True)
    laws = fit({name: curves[name] for name in names})
    family = _family(config, alone, laws, chosen)
    path = family.cheapest()
    shares = {names[s.index]: share for s, share in zip(path, family.shares(path), strict=True)}
    content = _content(config, alone, shares)
    chain = plan(load_config(content))
    return AutoPlan(forecast(family, path, chain, laws, pilot_flops), content, chain)


def _family(config: ChainConfig, alone: ChainPlan, laws: Laws, wanted: Collection[str]) -> Family:
    """Return the members as they learn alone, by their laws and the config's schedules."""
    return Family(
        [
            Candidate(
                stage.name,
                planned.flops,
                Lengths(laws, stage.name, Schedule(stage.param_scheduler), planned.iters),
                stage.name in wanted,
                fading,
            )
            for stage, planned, fading in zip(
                config.stages, alone.stages, fadings(config.stages), strict=True
            )
        ]
    )


def fadings(stages: Sequence[StageConfig]) -> Iterator[Fading]:
    """Yield what each stage overwrites: less where neither it nor the one before it decays."""
    source_decays = True
    for index, stage in enumerate(stages):
        trained = stage.as_grown if index else stage
        decays = decay_begin(trained.param_scheduler) is not None
        from_plateau = bool(index) and stages[index - 1].trunk and not source_decays
        yield FROM_PLATEAU if from_plateau and not decays else FROM_END
        source_decays = decays


def _content(config: ChainConfig, alone: ChainPlan, shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the family's config with another chain.

    Args:
        config: of the family.
        alone: plan of its members alone.
        shares: of their lengths alone that the chain's members are trained for.
    """
    content = {key: value for key, value in config.raw.items() if key not in NOT_TAKEN_OVER}
    unit, number = alone_amount(config)
    content["individual"] = {unit: number}
    content["chain"] = [
        _stage(own, max(1, round(shares[planned.name] * planned.iters)))
        for own, planned in zip(config.raw["chain"], alone.stages, strict=True)
        if planned.name in shares
    ]
    has_rate = "lr_mult" in config.raw.get("grown", {})
    for stage, share in zip(content["chain"][1:], list(shares.values())[1:], strict=True):
        if share < SHORT and not (has_rate or "lr_mult" in stage.get("grown", {})):
            stage["grown"] = {**stage.get("grown", {}), "lr_mult": SHORT_RATE}
    return content


def _stage(own: Mapping[str, Any], iters: int) -> dict[str, Any]:
    """Return a stage with another budget."""
    others = {key: value for key, value in own.items() if key not in BUDGET_UNITS}
    return {"name": others.pop("name"), "iters": iters, **others}
