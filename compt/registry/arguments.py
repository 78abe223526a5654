"""Hold the arguments that a config gives a plug-in against its constructor's signature.

The names, which have to be there, and the values, which have to fit the annotations. An annotation
may say more than a type: ``Annotated[float, Range(minimum=0)]``, or ``Annotated[Mapping[str, Any],
DATA]`` for the config of another plug-in. Annotations that cannot be resolved are not checked.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args, get_origin, runtime_checkable

from compt.errors import did_you_mean
from compt.registry.values import (
    ValueOptions,
    alternatives,
    as_declared,
    problem_of,
    without_metadata,
)


@dataclass(frozen=True)
class ArgumentFault:
    """What is wrong with the arguments of a plug-in, or with the value of one."""

    text: str
    path: str = ""
    """Of the value, such as 'weight' or 'data.max_broken'; '' for what concerns no value."""

    def beneath(self, path: str) -> ArgumentFault:
        """Return the fault of a plug-in that stands in an argument of another."""
        return ArgumentFault(self.text, f"{path}.{self.path}" if self.path else path)

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@runtime_checkable
class Registry(Protocol):
    """What an annotation names for an argument that is the config of another plug-in."""

    def argument_faults(self, cfg: Mapping[str, Any]) -> list[ArgumentFault]:
        """List all that is wrong with ``dict(type=name, **arguments)``."""


def name_faults(
    head: str, plugin: Callable[..., Any], arguments: Mapping[str, Any]
) -> list[ArgumentFault]:
    """List the arguments that a constructor does not take, and those that it lacks."""
    parameters = inspect.signature(plugin).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in named]
    unknown = [] if takes_any else [key for key in arguments if key not in names]
    required = [p.name for p in named if p.default is p.empty]
    takes = f"It takes: {', '.join(names)}." if names else "It takes none."
    texts = [f"takes no argument '{key}'.{did_you_mean(key, names)} {takes}" for key in unknown]
    texts += [f"needs the argument '{key}'." for key in required if key not in arguments]
    return [ArgumentFault(f"{head} {text}") for text in texts]


def value_faults(plugin: Callable[..., Any], arguments: Mapping[str, Any]) -> list[ArgumentFault]:
    """List the values that do not fit the annotations of a constructor."""
    faults = []
    for name, annotation, value in annotated(plugin, arguments):
        problem = problem_of(value, annotation, ValueOptions())
        if problem:
            faults.append(ArgumentFault(f"{shown(value)} {problem}", name))
        else:
            faults += [fault.beneath(name) for fault in _nested_faults(value, annotation)]
    return faults


def in_own_types(plugin: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without faults, a whole number that is written as a float as an int."""
    own = {name: as_declared(value, hint) for name, hint, value in annotated(plugin, arguments)}
    return {**arguments, **own}


def shown(value: Any, most: int = 120) -> str:
    """Return how messages show a value."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def annotated(
    plugin: Callable[..., Any], arguments: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, annotation and value of the arguments whose annotation says something."""
    function = plugin.__init__ if isinstance(plugin, type) else plugin  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that only type checkers import, or an expression of a newer Python
        return
    parameters = inspect.signature(plugin).parameters
    for name, value in arguments.items():
        is_own = name in parameters and parameters[name].kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if is_own and name in hints and not _is_default(value, parameters[name]):
            yield name, hints[name], value


def _is_default(value: Any, parameter: inspect.Parameter) -> bool:
    """Tell whether a value is the default, which fits whatever the annotation says."""
    return value is parameter.default


def _nested_faults(value: Any, annotation: Any) -> Iterator[ArgumentFault]:
    """Yield what is wrong with the configs of other plug-ins within a value."""
    for alternative in alternatives(annotation):
        kind, metadata = without_metadata(alternative)
        for registry in metadata:
            if isinstance(registry, Registry) and isinstance(value, Mapping):
                yield from registry.argument_faults(value)
        if get_origin(kind) is Sequence and isinstance(value, (list, tuple)):
            for index, entry in enumerate(value):
                for fault in _nested_faults(entry, get_args(kind)[0]):
                    yield fault.beneath(str(index))
