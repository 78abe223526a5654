"""Hold a value of a config against the type of its key, and say what is wrong with it."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from compt.errors import did_you_mean

NOUNS: Mapping[type, str] = {bool: "True or False", str: "a string"}
"""What messages call the values of a type."""


@dataclass(frozen=True, kw_only=True)
class ValueOptions:
    """What a type cannot say of a value."""

    minimum: float | None = None
    """Smallest number, itself allowed."""
    maximum: float | None = None
    positive: bool = False
    """Whether a number must be above 0."""
    zero_is_judged: bool = False
    """Whether a positive number may be 0 here, as a check of the section decides about it."""
    typed: bool = False
    """Whether a dict, or every dict of a list, must have a ``type``."""


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return what a union allows, or any other annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def problem_of(value: Any, annotation: Any, options: ValueOptions) -> str:
    """Say what is wrong with a value, as the end of a sentence, '' where it fits."""
    problems = [
        _alternative_problem(value, alternative, options)
        for alternative in alternatives(annotation)
        if alternative is not type(None)
    ]
    if not all(problems):
        return ""
    if len(problems) == 1:
        return problems[0]
    wanted = " or ".join(problem.removeprefix("is not ").removesuffix(".") for problem in problems)
    return f"is not {wanted}."


def as_declared(value: Any, annotation: Any) -> Any:
    """Return a sound value in its own type.

    ``iters=8.0`` is 8, as nothing counts to a float.
    """
    allowed = alternatives(annotation)
    is_whole = int in allowed and float not in allowed
    return int(value) if is_whole and isinstance(value, float) else value


def _alternative_problem(value: Any, alternative: Any, options: ValueOptions) -> str:
    """Say what is wrong with a value for one type of a union."""
    if alternative is Any:
        return ""
    origin = get_origin(alternative) or alternative
    if origin is Literal:
        return _choice_problem(value, get_args(alternative))
    if origin in (int, float):
        return _number_problem(value, origin, options)
    if origin in (Mapping, dict):
        return _dict_problem(value, options)
    if origin in (Sequence, list, tuple):
        return _list_problem(value, get_args(alternative), options)
    return _instance_problem(value, origin)


def _instance_problem(value: Any, kind: type) -> str:
    if kind is Path:
        sound = isinstance(value, (str, Path)) and "\0" not in str(value)
        return "" if sound else "is not a path."
    if kind in NOUNS:
        return "" if isinstance(value, kind) else f"is not {NOUNS[kind]}."
    return "" if isinstance(value, Mapping) else "is not a dict."  # read as a section


def _choice_problem(value: Any, choices: Sequence[Any]) -> str:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return ""
    return f"is none of {', '.join(map(repr, choices))}.{did_you_mean(str(value), choices)}"


def _dict_problem(value: Any, options: ValueOptions) -> str:
    if isinstance(value, Mapping) and ("type" in value or not options.typed):
        return ""
    return "is not a dict(type=..., ...)." if options.typed else "is not a dict."


def _list_problem(value: Any, contents: tuple[Any, ...], options: ValueOptions) -> str:
    content = contents[0] if contents else Any
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    if is_list and not any(_alternative_problem(one, content, options) for one in value):
        return ""
    return "is not a list of dict(type=..., ...)." if options.typed else "is not a list."


def _number_problem(value: Any, kind: type, options: ValueOptions) -> str:
    """Say what is wrong with a number.

    Whole ones may be written as floats (``samples=1e6``).
    """
    sound = _is_finite(value)
    if sound and kind is int and isinstance(value, float):
        sound = value.is_integer()
    if sound and options.positive:
        sound = value > 0 or (value == 0 and options.zero_is_judged)
    if sound and options.minimum is not None:
        sound = value >= options.minimum
    if sound and options.maximum is not None:
        sound = value <= options.maximum
    return "" if sound else f"is not {_wanted_number(kind, options)}."


def _is_finite(value: Any) -> bool:
    """Tell whether a value is a number that a float can hold, which True and False are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # 10**400 is a Python integer
        return False


def _wanted_number(kind: type, options: ValueOptions) -> str:
    noun = "a positive number" if options.positive else "a number"
    if kind is int:
        noun = "a positive whole number" if options.positive else "a whole number"
    if options.minimum is not None and options.maximum is not None:
        return f"{noun} from {options.minimum} to {options.maximum}"
    if options.minimum is not None:
        return f"{noun} of at least {options.minimum}"
    return noun if options.maximum is None else f"{noun} up to {options.maximum}"
