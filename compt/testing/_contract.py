"""What the contracts of all kinds of plug-ins have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from compt.errors import PluginError
from compt.interfaces import BufferRule, check_signatures, ruled_buffers
from compt.testing._shared import Violation, require, some


class Contract:
    """Base of all contracts, which names the author's class in all that they complain of."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every test that a class defines name the plug-in where it fails."""
        super().__init_subclass__(**kwargs)
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and inspect.isfunction(test):
                setattr(cls, name, _naming(test))

    def plugin_class(self) -> type:
        """Return the class that is held to the contract."""
        raise NotImplementedError


def _naming(test: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test of a contract that puts the plug-in's class before what is wrong."""

    @functools.wraps(test)
    def run(self: Contract, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return test(self, *args, **kwargs)
        except Violation as violation:
            # a plug-in that cannot be built has no name to give
            with suppress(Exception):
                violation.put_before(self.plugin_class().__name__)
            raise

    return run


def require_signatures(plugin: Any, base: type) -> None:
    """Require that every method of the interface can be called as the core calls it."""
    try:
        check_signatures(plugin, base)
    except PluginError as error:
        raise Violation(error.what, error.do) from error


def require_fitting_rules(rules: Mapping[str, BufferRule], module: nn.Module) -> None:
    """Require that every rule is known and fits a buffer of a module."""
    try:
        ruled = ruled_buffers(rules, module, "The class")
    except PluginError as error:
        raise Violation(error.what, error.do) from error
    idle = [pattern for pattern in rules if not any(fnmatchcase(name, pattern) for name in ruled)]
    require(
        not idle,
        f"buffer_rules has {some(idle)}, which fits no buffer.",
        "Name buffers as named_buffers() does: 'head.centre', or '*.centre' for all of one name.",
    )
