"""Import one plug-in and hold it to its interface."""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from compt._version import __version__
from compt.api import fault as api_fault
from compt.errors import PluginError
from compt.registry.entry_points import Entry, object_path, pip_command, unmet


@dataclass(frozen=True)
class Interface:
    """What the plug-ins of one kind are called and derive from."""

    noun: str
    """What messages call one plug-in."""
    base_name: str
    """Name of the class in ``compt.interfaces``."""

    @property
    def base(self) -> type:
        """Import the base class, and with it torch, which finding names does not need."""
        base: type = getattr(import_module("compt.interfaces"), self.base_name)
        return base

    def load(self, entry: Entry) -> type:
        """Import an entry point, with what it prints sent to stderr, and return its class.

        Raises:
            PluginError: it cannot be imported or is not what the interface asks for.
        """
        if requirement := unmet(entry):
            raise PluginError(
                f"The {self.noun} '{entry.name}' of {entry.origin} needs {requirement}, "
                f"and this is {__version__}.",
                do=f"pip install --upgrade {entry.package}, or: pip install '{requirement}'",
            )
        try:
            # stdout belongs to the command's own output, which scripts parse as JSON.
            with contextlib.redirect_stdout(sys.stderr):
                plugin = entry.point.load()
        except (Exception, SystemExit) as error:
            raise self._load_error(entry, error) from error
        return self.check(plugin, entry.name, f"of {entry.origin}")

    def check(self, plugin: Any, name: str, origin: str = "") -> type:
        """Return the plug-in if it is a complete subclass of the interface.

        Raises:
            PluginError: it is none, lacks methods, or was written for another plug-in API.
        """
        base = self.base
        head = f"The {self.noun} '{name}' {origin or f'({object_path(plugin)})'}"
        if isinstance(plugin, type) and issubclass(plugin, base):
            version: str = plugin.api_version  # type: ignore[attr-defined]
            if fault := version and api_fault(version):
                do = "Update the plug-in, or compt: pip install --upgrade compt"
                raise PluginError(f"{head} {fault}.", do=do)
            missing = sorted(getattr(plugin, "__abstractmethods__", ()))
            if not missing:
                return plugin
            what = f"{head} lacks the method{'s' * (len(missing) > 1)} {', '.join(missing)}."
        else:
            required = sorted(getattr(base, "__abstractmethods__", ()))
            missing = [method for method in required if not hasattr(plugin, method)]
            lacks = f" and lacks {', '.join(missing)}" if missing else ""
            kind = "" if isinstance(plugin, type) else f" a {type(plugin).__name__},"
            what = f"{head} is{kind} not a subclass of compt.{self.base_name}{lacks}."
        raise PluginError(
            what, do=f"Derive it from compt.{self.base_name} and write all its abstract methods."
        )

    def _load_error(self, entry: Entry, error: BaseException) -> PluginError:
        head = f"The {self.noun} '{entry.name}' of {entry.origin}"
        own = entry.target.partition(":")[0].partition(".")[0]
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and missing.partition(".")[0] != own:
            return PluginError(
                f"{head} needs the module '{missing}', which is not installed.",
                do=f"Install it: {pip_command(missing, entry)}",
            )
        if entry.point.pattern.match(entry.point.value) is None:
            return PluginError(
                f"{head} has no target of the form 'module:attribute'.",
                do=f"Mend the package '{entry.package}'.",
            )
        return PluginError(
            f"{head} cannot be imported: {first_line(error)}",
            where=raised_at(error),
            do=f"Update or remove the package '{entry.package}'; other plug-ins are not affected.",
        )


def first_line(error: BaseException) -> str:
    """Return class and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


def raised_at(error: BaseException) -> str:
    """Return file and line that an error was raised in, past the import machinery."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own[1:] else ""
