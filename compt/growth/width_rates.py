"""Give each parameter a learning rate by the widths that it reads, as muP does.

Under Adam every entry of a matrix takes a step of the learning rate, whatever its gradient is. What
the matrix writes is a sum over all that it reads, and the steps in it point the same way: at one
rate it changes the more in a step, the wider the model is. With a rate that falls as 1 / fan-in the
change is the same at any width (Tensor Programs V, arXiv 2203.03466, table 3, without multipliers).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from compt.growth.names import matcher
from compt.interfaces import Architecture, ParamAxes


@dataclass(frozen=True)
class WidthRates:
    """Learning rates of a member's parameters, relative to the one that its config says."""

    base: str
    """The member of which every parameter has that rate."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """By template, such as ``blocks.{block}.fc1.weight``, or by name where blocks differ.

    What fits none has the factor 1. One without ``{block}`` comes before those that have it.
    """
    num_by_factor: Mapping[float, int] = field(default_factory=dict)
    """Parameters whose factor is not 1, of each factor, the largest first."""
    num_others: int = 0
    """Parameters whose factor is 1."""
    num_unclear: int = 0
    """Of these, those that read a width which the base does not have."""


def width_rates(member: Architecture, base: Architecture, base_name: str) -> WidthRates:
    """Work out the rates of a member's parameters from its sizes and a base member's.

    They follow from the two sizes alone, so that a grown member has those of one from scratch.

    Args:
        member: whose parameters are trained.
        base: the member at which the learning rate was chosen.
        base_name: its name.
    """
    uses: defaultdict[str, list[ParamAxes]] = defaultdict(list)
    for param in member.params.values():
        if not param.buffer:
            uses[param.tied_to or param.name].append(param)
    # A table that is a head too learns as a table does, which reads no width.
    as_used = {
        name: min(own, key=lambda param: len([*_widths_read(param, member)]))
        for name, own in uses.items()
    }
    known = {name: width_factor(param, member, base) for name, param in as_used.items()}
    factors = {name: 1.0 if factor is None else factor for name, factor in known.items()}
    changed = Counter(factor for factor in factors.values() if factor != 1)
    return WidthRates(
        base=base_name,
        factors=_by_template(member, factors),
        num_by_factor=dict(sorted(changed.items(), reverse=True)),
        num_others=len(factors) - changed.total(),
        num_unclear=sum(factor is None for factor in known.values()),
    )


def width_factor(param: ParamAxes, member: Architecture, base: Architecture) -> float | None:
    """Return a parameter's learning rate relative to the base's, None where that is unclear.

    It is the base's fan-in by the member's, 1 for what reads no width: gains, biases, and tables
    and patches, whose inputs are the data's. A constant by which the model multiplies the
    parameter multiplies its steps too, which the rate makes up for.
    """
    widths = list(_widths_read(param, member))
    words = {word for axis in widths for word in _words(axis)}
    if not words <= base.sizes.keys():
        return None
    fan_in, base_fan_in = (prod(map(arch.size, widths)) for arch in (member, base))
    constants = {own.template: own.multiplier for own in base.params.values()}
    constant = constants.get(param.template, param.multiplier) / param.multiplier
    return constant * base_fan_in / fan_in


def _widths_read(param: ParamAxes, arch: Architecture) -> Iterator[str]:
    """Yield the axes of every dimension that is read and may be wider in another member.

    Of heads and their units both count, although only the number of heads may grow.
    """
    for group in (param.groups[index] for index in param.reads):
        words = (word for axis in group for word in _words(axis))
        if any(arch.roles.get(word, "fixed") != "fixed" for word in words):
            yield from group


def _words(axis: str) -> list[str]:
    """Return the named axes of one that may be a concatenation, as ``"a b | c"``."""
    return [word for word in axis.replace("|", " ").split() if not word.isdigit()]


def _by_template(arch: Architecture, factors: Mapping[str, float]) -> dict[str, float]:
    """Return the factors that are not 1, by what names all blocks of a stack at once."""
    by_template: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, factor in factors.items():
        by_template[arch.params[name].template][name] = factor
    entries: dict[str, float] = {}
    for template, own in by_template.items():
        values = {*own.values()}
        entries |= {template: values.pop()} if len(values) == 1 else own
    changed = {name: factor for name, factor in entries.items() if factor != 1}
    patterns = [matcher(name) for name in changed if "{block}" in name]
    # A first block may have patterns of its own, which those of the other blocks fit too.
    for name in entries.keys() - changed.keys():
        if "{block}" not in name and any(pattern.match(name) for pattern in patterns):
            changed[name] = 1.0
    return dict(sorted(changed.items(), key=lambda entry: "{block}" in entry[0]))
