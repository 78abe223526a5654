"""Say of every kind of plug-in what it was written for and what it used to be called."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from compt.api import API_VERSION


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
