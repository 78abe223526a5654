"""Read the names of layouts, of the parameters in them, and those that patterns refer to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from compt.errors import LayoutError

ANY = ".*"
"""What a name ends in that stands for all tensors of one module."""


def class_path(cls: type) -> str:
    """Return the name that a layout for this class is registered under."""
    return f"{cls.__module__}.{cls.__qualname__}"


def matcher(name: str) -> re.Pattern[str]:
    """Turn a layout's parameter name into an expression with one group for each ``{name}``."""
    module = name.removesuffix(ANY)
    seen: set[str] = set()

    def digits(match: re.Match[str]) -> str:
        index = match[1]
        if index in seen:
            return f"(?P={index})"
        seen.add(index)
        return "(?P<first>0)" if index == "first" else rf"(?P<{index}>\d+)"

    numbered = re.sub(r"\\\{(\w+)\\\}", digits, re.escape(module))
    if {"first", "block"} <= seen:
        raise LayoutError(
            f"The name '{name}' in a layout has both {{first}} and {{block}}.",
            do="Give a stack's first block names with {first}, and all others names with {block}.",
        )
    return re.compile(numbered + (r"\.[^.]+" if module != name else "") + r"\Z")


def relations(
    pattern: str, module: nn.Module, indices: Mapping[str, str], *, where: str = ""
) -> tuple[str, str | None, str | None]:
    """Split a pattern into its axes, the factor after ``*`` and the reader after ``@``.

    Factor and reader are None where there is none. Several names may follow either
    sign, since variants of a model differ: the first that the module has is meant.
    """
    pattern, factors, readers = _split_others(pattern)

    def first_present(names: str) -> str | None:
        candidates = filled(names, indices, where).split()
        return next((name for name in candidates if _has_parameter(module, name)), None)

    return pattern, first_present(factors), first_present(readers)


def named_others(pattern: str) -> list[str]:
    """Return the parameters that a pattern names, as its factors or readers."""
    return " ".join(_split_others(pattern)[1:]).split()


def _split_others(pattern: str) -> tuple[str, str, str]:
    """Return a pattern's axes, the names after ``*`` and those after ``@``."""
    pattern, _, readers = pattern.partition("@")
    pattern, _, factors = pattern.partition("*")
    return pattern, factors, readers


def filled(pattern: str, indices: Mapping[str, str], where: str) -> str:
    """Return a pattern with the values of the ``{name}`` in its parameter's name.

    Raises:
        LayoutError: the parameter's name has no such ``{name}``.
    """
    try:
        return pattern.format(**indices)
    except (IndexError, KeyError, ValueError) as error:
        names = ", ".join(f"{{{name}}}" for name in indices) or "none"
        raise LayoutError(
            f"The pattern '{pattern}' has braces that its parameter's name lacks ({names}).",
            where=where,
            do="Use in it the {name} of the parameter's name in the layout.",
        ) from error


def _has_parameter(module: nn.Module, name: str) -> bool:
    try:
        module.get_parameter(name)
    except AttributeError:
        return False
    return True
