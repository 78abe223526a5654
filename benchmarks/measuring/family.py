"""Read from a family's file and a preset what is to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.errors import ConfigError

FAMILIES = Path(__file__).parents[1] / "families"
OWN = ("name", "family", "presets", "floor", "metric", "study")
WAYS = ("grower", "transfer", "grown")
"""What makes a chain of its members: nothing that a member alone depends on."""
PRESET = ("iters", "seeds", "fractions", "rates")
OPTIONAL = ("longest", "lr_mults", "chains")
SIZES = {3: (0, 3, 6), 4: (0, 2, 4, 6), 7: tuple(range(7))}
"""Which of seven members make the smaller families: the smallest and the largest always."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast every member of a chain is trained."""

    fractions: tuple[float, ...]
    """Of its budget alone, for every member."""
    lr_mults: tuple[float, ...]
    """Peak learning rate of every member relative to its own."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured, with the members' budget alone and what may be chosen."""

    name: str
    members: tuple[Mapping[str, Any], ...]
    """Each with name, model, and the learning rate that its sweep begins at."""
    base: Mapping[str, Any]
    """The keys of a chain's config that all runs share."""
    iters: int
    seeds: int
    fractions: tuple[float, ...]
    rates: int
    """Learning rates to begin a sweep with; 1 for no sweep."""
    longest: float
    """How many times longer than it needs itself a member may train that another grows from.

    1 for no longer."""
    metric: str | None
    """The held-out metric to compare, 'split/name'; None for the paradigm's main one."""
    floor: str
    lr_mults: tuple[float, ...]
    """Learning rates to try for a grown member, relative to its own.

    1 is among them, and the highest is the first."""
    recipe: Recipe | None
    """The chain to train; None where it is to be searched for."""
    study: tuple[Mapping[str, Any], ...]
    """Ways to grow that ``study.py`` compares."""

    @property
    def choosing(self) -> tuple[int, ...]:
        """Seeds on which budgets and rules are chosen."""
        return (0, self.seeds + 1) if self.rates > 1 else (0,)

    @property
    def judging(self) -> tuple[int, ...]:
        """Seeds on which nothing is chosen, which alone are reported."""
        if self.rates == 1:  # without a sweep there is nothing to choose
            return tuple(range(self.seeds))
        return tuple(range(1, self.seeds + 1))

    @property
    def ways(self) -> dict[str, Any]:
        """How members are grown, the keys of ``WAYS``."""
        return {key: self.base.get(key) for key in WAYS}

    def member(self, index: int, rate: float, iters: int) -> dict[str, Any]:
        """Return one stage of a config, a member with its learning rate and budget."""
        member = self.members[index]
        return {
            "name": member["name"],
            "model": member["model"],
            "iters": iters,
            "optim_wrapper": {"optimizer": {"lr": rate}},
        }

    def iters_of(self, fraction: float) -> int:
        """Return the iterations of a fraction of the budget."""
        return max(1, round(fraction * self.iters))


def read_plan(paradigm: str, members: int, preset: str, options: Mapping[str, Any]) -> Plan:
    """Read a family's file.

    Args:
        paradigm: a file of ``families``, or the path of one.
        members: how many of the family to take.
        preset: of the file.
        options: dotted keys to override.

    Raises:
        ConfigError: the file cannot be read, or lacks members or the preset.
    """
    path = _family_file(paradigm)
    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    content = config.to_dict()
    missing = [key for key in ("paradigm", "family", "presets") if not content.get(key)]
    if missing:
        raise ConfigError(
            f"'{path.name}' lacks {', '.join(missing)}.",
            where=str(path),
            do="See families/causal_lm.py.",
        )
    chosen = _preset(content, preset, path)
    family = _family(content["family"], members, path)
    base = {key: value for key, value in content.items() if key not in OWN}
    base |= {key: value for key, value in chosen.items() if key not in PRESET + OPTIONAL}
    return Plan(
        name=f"{content.get('name', path.stem)}-{preset}",
        members=tuple(family),
        base=base,
        iters=chosen["iters"],
        seeds=chosen["seeds"],
        fractions=tuple(sorted(chosen["fractions"])),
        rates=chosen["rates"],
        longest=chosen.get("longest", 1.0),
        metric=content.get("metric"),
        floor=content.get("floor", ""),
        lr_mults=tuple(chosen.get("lr_mults", (1.0,))),
        recipe=_recipe(chosen.get("chains", ()), len(family)),
        study=tuple(content.get("study", ())),
    )


def _family_file(name: str) -> Path:
    """Return a family's file, given by its path or by its name in ``families``."""
    path = Path(name) if Path(name).is_file() else FAMILIES / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FAMILIES.glob("*.py")))
        raise ConfigError(f"There is no family '{name}'.", do=f"Name a file, or one of: {known}.")
    return path


def _preset(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    if name not in content["presets"]:
        raise ConfigError(
            f"'{path.name}' has no preset '{name}'.", where=str(path), do="Add it to `presets`."
        )
    preset: Mapping[str, Any] = content["presets"][name]
    lacking = [key for key in PRESET if key not in preset]
    if lacking:
        raise ConfigError(f"The preset '{name}' lacks {', '.join(lacking)}.", where=str(path))
    return preset


def _family(
    family: Sequence[Mapping[str, Any]], members: int, path: Path
) -> Sequence[Mapping[str, Any]]:
    """Return so many members of a family, which has seven or exactly as many."""
    if len(family) == 7:
        return [family[i] for i in SIZES[members]]
    if len(family) != members:
        raise ConfigError(
            f"'{path.name}' has {len(family)} members.",
            do=f"Use --family {len(family)}, or give 7.",
        )
    return family


def _recipe(chains: Sequence[Mapping[str, Any]], members: int) -> Recipe | None:
    """Return the recipe that is known for so many members, None where there is none."""
    for chain in chains:
        recipe = Recipe(tuple(chain.get("fractions", ())), tuple(chain.get("lr_mults", ())))
        if not 0 < len(recipe.fractions) == len(recipe.lr_mults):
            raise ConfigError(
                "A chain needs `fractions` and as many `lr_mults`.",
                where=f"chains: {dict(chain)}",
                do="Give one of each for every member.",
            )
        if len(recipe.fractions) == members:
            return recipe
    return None
