"""Hold a value of a config against an annotation, and say what is wrong with it."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from compt.errors import did_you_mean

NOUNS: Mapping[type, str] = {bool: "True or False", str: "a string"}
"""What messages call the values of a type."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The bounds of a number, as ``Annotated[float, Range(minimum=0)]`` declares them.

    They hold for every number of a list.
    """

    minimum: float | None = None
    """Smallest number, itself allowed."""
    maximum: float | None = None
    """Largest number, itself allowed."""
    positive: bool = False
    """Whether a number must be above 0."""


@dataclass(frozen=True, kw_only=True)
class ValueOptions(Range):
    """What a type cannot say of a value."""

    zero_is_judged: bool = False
    """Whether a positive number may be 0 here, as a check of the section decides about it."""
    typed: bool = False
    """Whether a dict, or every dict of a list, must have a ``type``."""


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return what a union allows, or any other annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def without_metadata(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type of an ``Annotated``, and its metadata; of any other annotation none."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0], annotation.__metadata__
    return annotation, ()


def problem_of(value: Any, annotation: Any, options: ValueOptions) -> str:
    """Say what is wrong with a value, as the end of a sentence, '' where it fits."""
    annotation, options = _with_own_range(annotation, options)
    if value is None and type(None) in alternatives(annotation):
        return ""
    problems = [
        _alternative_problem(value, alternative, options)
        for alternative in alternatives(annotation)
        if alternative is not type(None)
    ]
    if not all(problems):
        return ""
    entry = [problem for problem in problems if problem.startswith("has ")]
    if len(problems) == 1 or entry:
        return [*entry, *problems][0]
    wanted = " or ".join(problem.removeprefix("is not ").removesuffix(".") for problem in problems)
    return f"is not {wanted}."


def as_declared(value: Any, annotation: Any) -> Any:
    """Return a sound value in its own type.

    ``iters=8.0`` is 8, as nothing counts to a float.
    """
    unbounded, _ = without_metadata(annotation)
    allowed = [without_metadata(alternative)[0] for alternative in alternatives(unbounded)]
    is_whole = int in allowed and float not in allowed
    return int(value) if is_whole and isinstance(value, float) else value


def _with_own_range(annotation: Any, options: ValueOptions) -> tuple[Any, ValueOptions]:
    """Return the type of an annotation, and the options with the range that it declares."""
    annotation, metadata = without_metadata(annotation)
    for declared in metadata:
        if isinstance(declared, Range):
            options = replace(options, **asdict(declared))
    return annotation, options


def _alternative_problem(value: Any, alternative: Any, options: ValueOptions) -> str:
    """Say what is wrong with a value for one type of a union."""
    alternative, options = _with_own_range(alternative, options)
    if get_origin(alternative) in (Union, types.UnionType):
        return problem_of(value, alternative, options)
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
        return _list_problem(value, alternative, options)
    return _instance_problem(value, origin)


def _instance_problem(value: Any, kind: Any) -> str:
    if kind is Path:
        sound = isinstance(value, (str, Path)) and "\0" not in str(value)
        return "" if sound else "is not a path."
    if kind in NOUNS:
        return "" if isinstance(value, kind) else f"is not {NOUNS[kind]}."
    # A dataclass is read from a dict; of other classes a config says nothing.
    is_section = isinstance(kind, type) and is_dataclass(kind)
    return "is not a dict." if is_section and not isinstance(value, (kind, Mapping)) else ""


def _choice_problem(value: Any, choices: Sequence[Any]) -> str:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return ""
    return f"is none of {', '.join(map(repr, choices))}.{did_you_mean(str(value), choices)}"


def _dict_problem(value: Any, options: ValueOptions) -> str:
    if isinstance(value, Mapping) and (not options.typed or names_a_type(value.get("type"))):
        return ""
    return "is not a dict(type=..., ...)." if options.typed else "is not a dict."


def names_a_type(kind: Any) -> bool:
    """Tell whether a config's ``type`` is a class or a name that can be looked up."""
    return isinstance(kind, type) or (isinstance(kind, str) and bool(kind.strip(". ")))


def _list_problem(value: Any, annotation: Any, options: ValueOptions) -> str:
    contents = get_args(annotation)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        return f"is not a list{' of dict(type=..., ...)' * options.typed}."
    is_row = get_origin(annotation) is tuple and Ellipsis not in contents
    if is_row and contents and len(list(value)) != len(contents):
        return f"is not a list of {len(contents)}."
    for index, entry in enumerate(value):
        content = contents[index if is_row else 0] if contents else Any
        if problem := problem_of(entry, content, options):
            typed = "is not a list of dict(type=..., ...)."
            return typed if options.typed else f"has {entry!r}, which {problem}"
    return ""


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
