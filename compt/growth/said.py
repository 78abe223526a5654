"""Check what a layout says of a module, apart from what its patterns mean."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from torch import nn

from compt.errors import LayoutError
from compt.growth.names import matcher, named_others
from compt.interfaces import Layout, Role, Unit


def check_said(layout: Layout, module: nn.Module, children: Iterable[str]) -> None:
    """Raise LayoutError where a layout names what it has not, or a value that nothing can be.

    Args:
        layout: of the module.
        module: what it describes.
        children: names of child modules that their own layouts describe.
    """
    name, patterns = type(layout).__name__, layout.patterns_of(module)
    known_roles = (*get_args(Role), *get_args(Unit))
    roles = {axis: role for axis, role in layout.roles.items() if role not in known_roles}
    _refuse(f"{name}.roles", roles, f"A role is one of {known_roles}.")
    said_sizes = layout.sizes(module)
    sizes = {axis: size for axis, size in said_sizes.items() if not _is_count(size)}
    _refuse(f"{name}.sizes()", sizes, "A size is a whole number of at least 1.")
    uncounted = {axis: size for axis, size in layout.chosen.items() if size not in said_sizes}
    _refuse(f"{name}.chosen", uncounted, "Say in sizes() how many units of the axis are chosen.")
    periods = {scope: n for scope, n in layout.periods(module).items() if not _is_count(n)}
    _refuse(f"{name}.periods()", periods, "A period is a whole number of at least 1.")
    for method in ("multipliers", "score_scales"):
        factors: Mapping[str, float] = getattr(layout, method)(module)
        wrong = {key: factor for key, factor in factors.items() if not _is_factor(factor)}
        _refuse(f"{name}.{method}()", wrong, "A multiplier is a finite number other than 0.")
        unknown = {key: factors[key] for key in factors.keys() - patterns.keys()}
        _refuse(f"{name}.{method}()", unknown, "Name in it what patterns name, word for word.")
    unknown_dense = {key: layout.dense[key] for key in layout.dense.keys() - patterns.keys()}
    _refuse(f"{name}.dense", unknown_dense, "Name in it what patterns name, word for word.")
    _check_others(name, patterns, children)


def _refuse(where: str, wrong: Mapping[str, Any], do: str) -> None:
    """Raise LayoutError where there is anything wrong."""
    if wrong:
        raise LayoutError(f"{where} has {dict(sorted(wrong.items()))}, which cannot be.", do=do)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value != 0


def _check_others(name: str, patterns: Mapping[str, str], children: Iterable[str]) -> None:
    """Raise LayoutError where a pattern names a factor or reader that no pattern describes."""
    keys = [matcher(key) for key in patterns]
    of_children = tuple(f"{child}." for child in children)
    for key, pattern in patterns.items():
        for other in named_others(pattern):
            sample = re.sub(r"\{\w+\}", "0", other)
            if not sample.startswith(of_children) and not any(k.match(sample) for k in keys):
                raise LayoutError(
                    f"{name} says of '{key}' that '{other}' acts on what it makes, and no pattern "
                    "describes that.",
                    do="Name a parameter as patterns do.",
                )
