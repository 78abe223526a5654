"""Say of every kind of plug-in what it was written for and what it used to be called."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from compt.api import API_VERSION
from compt.errors import PluginError

Result = TypeVar("Result")


def may_omit(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Mark keyword arguments that an implementation of this method may leave out of its signature.

    The core passes them through :func:`accepted`, as pluggy does with the arguments of a hook. For
    type checkers an implementation may then have any signature.
    """

    def mark(method: Callable[..., Result]) -> Callable[..., Result]:
        method.may_omit = frozenset(names)  # type: ignore[attr-defined]
        return method

    return mark


def check_signatures(plugin: Any, interface: type) -> None:
    """Raise PluginError unless every method of the interface can be called as the core calls it."""
    for name, method in vars(interface).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        signature = inspect.signature(method)
        parameters = list(signature.parameters.values())[1:]
        positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        keywords = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
        own_method = getattr(plugin, name)
        optional = {key: None for key in keywords if key in getattr(method, "may_omit", ())}
        left_out = optional.keys() - accepted(own_method, **optional).keys()
        passed = {key: None for key in keywords if key not in left_out}
        try:
            inspect.signature(own_method).bind(*positional, **passed)
        except TypeError as error:
            may = f"; it may leave out {', '.join(optional)}" if optional else ""
            raise PluginError(
                f"{type(plugin).__name__}.{name}() does not take what the core gives it: {error}.",
                do=f"Define it with the arguments of compt.{interface.__name__}: "
                f"def {name}{signature}{may}.",
            ) from error


def accepted(method: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return those of these keyword arguments that a method takes."""
    names, takes_all = _keywords(getattr(method, "__func__", method))
    return {name: value for name, value in arguments.items() if takes_all or name in names}


@functools.lru_cache(maxsize=512)
def _keywords(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the names that a function takes by keyword, and whether it takes any."""
    parameters = inspect.signature(function).parameters.values()
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = frozenset(p.name for p in parameters if p.kind in by_keyword)
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def renamed_method(old: str, new: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """Make the forwarder that stands under a method's old name for one minor version.

    Calls go to the method under its new name, with a warning. Where a subclass still overrides the
    old name, its override is reached by the new one (see :class:`Plugin`), so a call that arrives
    here is its ``super()`` call and goes to the base's own code.
    """

    name = name or new.__name__

    @functools.wraps(new)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", name)
        overridden = getattr(type(self), old) is not forward
        method = functools.partial(new, self) if overridden else getattr(self, name)
        return method(*args, **kwargs)

    forward.__doc__ = f"Call :meth:`{name}`, as this is named now."
    return forward


def warn_renamed(old: str, new: str) -> None:
    """Warn that a public name has another one now, and will go with the next minor version."""
    text = f"{old} is called {new} since plug-in API {API_VERSION}; the old name will go."
    warnings.warn(text, FutureWarning, stacklevel=3)


class Plugin:
    """Base of all interfaces, with what every kind of plug-in can say of itself."""

    api_version: ClassVar[str] = ""
    """``compt.API_VERSION`` when it was written; a compt without that version refuses it."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Old argument names of the constructor with today's; configs may use them, with a warning."""
    renamed_methods: ClassVar[Mapping[str, str]] = {}
    """Old method names of the interface with today's; overriding them works, with a warning."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give what a subclass defines under an old name its new name."""
        super().__init_subclass__(**kwargs)
        for old, new in cls.renamed_methods.items():
            own = vars(cls)
            if old in own and new not in own:
                warn_renamed(f"{cls.__name__}.{old}", new)
                setattr(cls, new, own[old])
            elif new in own and old not in own:
                # so that super() under the old name comes to this class, not past it
                setattr(cls, old, renamed_method(old, own[new], new))
