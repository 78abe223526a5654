"""Read from a family's file and a preset what is to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.errors import ConfigError
from measuring.rule import MORE_SEEDS

FAMILIES = Path(__file__).parents[1] / "families"
OWN = (
    *("name", "family", "presets", "floor", "metric", "unit"),
    *("published", "recipes", "study", "choices", "in_chain", "as_grown", "first_seed", "sure"),
)
"""Keys of a family's file that a chain's config does not have."""
PRIVATE = "_"
"""What names begin with that a family's file has for itself."""
WAYS = ("grower", "transfer", "grown", "trunk")
"""What makes a chain of its members: nothing that a member alone depends on.

A hop may choose all of it. ``trunk`` is then whether it grows from its source's plateau, which that
keeps for it.
"""
REQUIRED = ("lengths", "seeds")
"""Keys that a preset has."""
OPTIONAL = ("sweeping", "study_lengths", "control_seeds", "chains")
"""Keys that it may have; all others replace those of the family."""
CHOOSING = (101, 102)
"""Seeds on which rates and budgets are chosen; none of them judges."""
CONTROL_SEEDS = 2
"""How many of the judging seeds train the controls, where a preset does not say."""
PUBLISHED: Mapping[str, Any] = {
    "grower": {"type": "leading_block"},
    "transfer": {"type": "feature_mse"},
    "fractions": (1.0, 3 / 16, 1 / 8),
}
"""CoM-PT (arXiv 2604.12391): the corner copy, feature transfer, and shares of the epochs."""
AS_PUBLISHED = "as published"


@dataclass(frozen=True)
class Unit:
    """In what the length of training is told, beside iterations."""

    name: str
    iterations: float
    """Of one unit."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast every member of a chain is trained."""

    fractions: tuple[float, ...]
    """Of its budget alone, for every member."""
    lr_mults: tuple[float, ...]
    """Peak learning rate of every member relative to its own."""
    grown_by: tuple[Mapping[str, Any], ...] = ()
    """How every member is grown, the first one's without meaning; none for the family's own."""

    def ways_of(self, index: int) -> Mapping[str, Any] | None:
        """Return how a member is grown, None for the family's own ways."""
        return self.grown_by[index] if self.grown_by else None


@dataclass(frozen=True)
class Family:
    """The members and the lengths to measure, and what all runs share."""

    name: str
    members: tuple[Mapping[str, Any], ...]
    """Each with name, model, and the learning rate that its sweep begins at, small to large."""
    base: Mapping[str, Any]
    """The keys of a chain's config that all runs share, and how members are grown."""
    lengths: tuple[int, ...]
    """Iterations that every member has alone, ascending; each makes a row."""
    seeds: Mapping[int, int]
    """How many seeds judge a row, by its length."""
    sweeping: bool
    """Whether learning rates are searched for, or those of the file are taken."""
    control_seeds: int
    """How many of them train the controls."""
    metric: str | None
    """The held-out metric to compare, 'split/name'; None for the paradigm's main one."""
    floor: str
    unit: Unit
    recipes: Mapping[str, Mapping[str, Any]]
    """Ways and ``fractions`` of other chains to hold the members against, by name; that of the
    method as published, if it is there, is ``AS_PUBLISHED``."""
    study: tuple[Mapping[str, Any], ...]
    """Ways to grow that ``study.py`` compares."""
    study_lengths: tuple[int, ...]
    chains: Mapping[int, Recipe]
    """Chains known already, by length."""
    choices: tuple[Mapping[str, Any], ...] = ()
    """Ways to grow, of which every hop's search takes one, in the place of the family's own."""
    in_chain: Mapping[str, Any] = field(default_factory=dict)
    """Keys that members have in the chain and not alone, such as a schedule without a decay."""
    as_grown: Mapping[str, Any] = field(default_factory=dict)
    """The same for all members but the first, which is trained as alone."""
    first_seed: int = 1
    """Of those that judge; another one for a chain that was made after others were judged."""
    sure: bool = False
    """Whether the search leaves room for the interval that judges, see ``hops.search``."""

    @property
    def alone_base(self) -> dict[str, Any]:
        """What a member alone depends on, of the keys that all runs share."""
        return {key: value for key, value in self.base.items() if key not in WAYS}

    @property
    def ways(self) -> dict[str, Any]:
        """How members are grown, the keys of ``WAYS``, and what else they have in the chain."""
        return {**self.first_ways, **self.as_grown}

    @property
    def first_ways(self) -> dict[str, Any]:
        """The same keys of the first member, which others are grown from."""
        return {key: self.base[key] for key in WAYS if key in self.base} | dict(self.in_chain)

    @property
    def hop_ways(self) -> tuple[Mapping[str, Any], ...]:
        """Ways to grow that a hop has: the family's own, with each of the choices, if any."""
        return tuple({**self.ways, **choice} for choice in self.choices or ({},))

    def member(self, index: int, rate: float, iters: int) -> dict[str, Any]:
        """Return one stage of a config, a member with its learning rate and budget."""
        member = self.members[index]
        return {
            "name": member["name"],
            "model": member["model"],
            "iters": iters,
            "optim_wrapper": {"optimizer": {"lr": rate}},
        }

    def judging(self, iters: int, count: int | None = None) -> tuple[int, ...]:
        """Return the seeds that judge a row, on which nothing is chosen.

        Args:
            iters: the row's length.
            count: how many; None for as many as the family's file says.
        """
        count = self.seeds[iters] if count is None else count
        return tuple(range(self.first_seed, self.first_seed + count))

    def row_lengths(self, iters: int | None) -> tuple[int, ...]:
        """Return the lengths of the rows to make.

        Raises:
            ConfigError: a single one that the preset lacks.
        """
        if iters is None:
            return self.lengths
        if iters not in self.lengths:
            known = ", ".join(map(str, self.lengths))
            raise ConfigError(f"There is no row of {iters} iterations.", do=f"One of: {known}.")
        return (iters,)

    def units(self, iters: int) -> float:
        """Return a length in the family's unit."""
        return iters / self.unit.iterations


def read_family(name: str, preset: str, options: Mapping[str, Any]) -> Family:
    """Read a family's file.

    Args:
        name: a file of ``families``, or the path of one.
        preset: of the file.
        options: dotted keys to override.

    Raises:
        ConfigError: the file cannot be read, or lacks members or the preset.
    """
    path = _family_file(name)
    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    content = config.to_dict()
    if missing := [key for key in ("paradigm", "family", "presets") if not content.get(key)]:
        raise ConfigError(
            f"'{path.name}' lacks {', '.join(missing)}.",
            where=str(path),
            do="See families/lm.py.",
        )
    chosen = _preset(content, preset, path)
    content |= {key: value for key, value in chosen.items() if key not in REQUIRED + OPTIONAL}
    members = tuple(content["family"])
    if len(members) < 2:
        raise ConfigError("A family has two members or more.", where=str(path))
    lengths = tuple(sorted(chosen["lengths"]))
    return Family(
        name=f"{content.get('name', path.stem)}-{preset}",
        members=members,
        base={
            key: value
            for key, value in content.items()
            if key not in OWN and not key.startswith(PRIVATE)
        },
        lengths=lengths,
        seeds=_seeds(chosen["seeds"], lengths),
        sweeping=chosen.get("sweeping", True),
        control_seeds=chosen.get("control_seeds", CONTROL_SEEDS),
        metric=content.get("metric"),
        floor=content.get("floor", ""),
        unit=_unit(content.get("unit", {"name": "iterations", "iterations": 1})),
        recipes=_recipes(content),
        study=tuple(content.get("study", ())),
        study_lengths=_study_lengths(chosen.get("study_lengths", lengths[:1]), lengths),
        chains=_chains(chosen.get("chains", {}), len(members)),
        choices=_choices(content.get("choices") or ()),
        in_chain=content.get("in_chain") or {},
        as_grown=content.get("as_grown") or {},
        first_seed=_first_seed(content.get("first_seed", 1)),
        sure=bool(content.get("sure", False)),
    )


def _family_file(name: str) -> Path:
    """Return a family's file, given by its path or by its name in ``families``."""
    path = Path(name) if Path(name).is_file() else FAMILIES / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FAMILIES.glob("*.py")))
        raise ConfigError(f"There is no family '{name}'.", do=f"Name a file, or one of: {known}.")
    return path


def _preset(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """Return a preset that says what it must."""
    if name not in content["presets"]:
        known = ", ".join(content["presets"])
        raise ConfigError(
            f"'{path.name}' has no preset '{name}'.",
            where=str(path),
            do=f"One of: {known}; or add it to `presets`.",
        )
    preset: Mapping[str, Any] = content["presets"][name]
    if lacking := [key for key in REQUIRED if not preset.get(key)]:
        raise ConfigError(f"The preset '{name}' lacks {', '.join(lacking)}.", where=str(path))
    return preset


def _unit(unit: Mapping[str, Any]) -> Unit:
    """Return the unit of lengths."""
    if unit.keys() != {"name", "iterations"}:
        raise ConfigError("`unit` needs a `name`, and `iterations` of one.", where="unit")
    return Unit(**unit)


def _seeds(seeds: int | Mapping[int, int], lengths: Sequence[int]) -> dict[int, int]:
    """Return how many seeds judge each length."""
    if not isinstance(seeds, Mapping):
        return dict.fromkeys(lengths, seeds)
    if lacking := [str(length) for length in lengths if length not in seeds]:
        raise ConfigError(f"`seeds` has none for the length {', '.join(lacking)}.", where="seeds")
    return dict(seeds)


def _first_seed(seed: int) -> int:
    """Return the first judging seed, so that none of them is one to choose on."""
    if not 1 <= seed <= min(CHOOSING) - MORE_SEEDS:
        raise ConfigError(
            f"`first_seed` is {seed!r}.",
            where="first_seed",
            do=f"From 1 to {min(CHOOSING) - MORE_SEEDS}: rates are chosen on {CHOOSING}.",
        )
    return seed


def _study_lengths(study_lengths: Sequence[int], lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths of the study, of which the rows must have each."""
    if lacking := [str(length) for length in study_lengths if length not in lengths]:
        raise ConfigError(
            f"`study_lengths` has {', '.join(lacking)}, which `lengths` has not.",
            where="study_lengths",
            do="Rates are found at `lengths`, short to long.",
        )
    return tuple(sorted(study_lengths))


def _chains(chains: Mapping[int, Mapping[str, Any]], members: int) -> dict[int, Recipe]:
    """Return the recipes that are known, by length."""
    recipes = {}
    for iters, chain in chains.items():
        recipe = Recipe(tuple(chain.get("fractions", ())), tuple(chain.get("lr_mults", ())))
        if not len(recipe.fractions) == len(recipe.lr_mults) == members:
            raise ConfigError(
                "A chain needs one of `fractions` and of `lr_mults` for every member.",
                where=f"chains.{iters}",
            )
        recipes[iters] = recipe
    return recipes


def _choices(choices: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return ways that a hop may choose between."""
    for place, choice in enumerate(choices):
        if unknown := [key for key in choice if key not in WAYS]:
            raise ConfigError(
                f"A hop cannot choose {', '.join(unknown)}.",
                where=f"choices[{place}]",
                do=f"Choices have {', '.join(WAYS)}; all members share the file's other keys.",
            )
    return tuple(choices)


def _recipes(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the recipes to hold the members against, the published one unless it is left out."""
    published = content.get("published", PUBLISHED)
    recipes = {AS_PUBLISHED: published} if published else {}
    return {**recipes, **(content.get("recipes") or {})}


def published_fractions(published: Mapping[str, Any], members: int) -> Sequence[float]:
    """Return the shares of the epochs that the published method gives to so many members.

    The last one serves all members beyond those listed.
    """
    fractions: list[float] = list(published.get("fractions", PUBLISHED["fractions"]))
    return (fractions + fractions[-1:] * members)[:members]
