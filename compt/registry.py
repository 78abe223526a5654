"""GROWERS, TRANSFERERS, PARADIGMS, LAYOUTS: mmengine registries that also find plug-ins through entry points.

A name is looked up among the classes registered in this process (``register_module``) and the entry points
of installed packages; only the one asked for is imported. ``package:name`` always means the entry point of
that package. Names are whole, dots included: no part of one is a scope, a module or a path to import.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine.registry import Registry

from compt import __version__
from compt.api import fault as api_fault
from compt.entries import Entry, Names, object_path, pip_command, unmet
from compt.errors import ComptError, ConfigError, PluginError, did_you_mean


class PluginRegistry(Registry):
    """Find the plug-ins of one interface by name, registered in this process or declared by a package.

    Args:
        noun: what messages call one plug-in.
        group: entry-point group that packages declare.
        base: name of the class in ``compt.interfaces`` that plug-ins derive from.
    """

    def __init__(self, noun: str, *, group: str, base: str) -> None:
        super().__init__(noun, scope="compt")
        self.noun, self.group, self._base = noun, group, base
        self.known = Names(group, self._module_dict)
        self._loaded: dict[str, type] = {}

    @property
    def base(self) -> type:
        """The interface that plug-ins derive from; imports torch, which this module does not."""
        return getattr(import_module("compt.interfaces"), self._base)

    def get(self, key: str) -> type:
        """Return the class registered under a name, importing it and no other plug-in.

        Raises:
            PluginError: unknown, declared more than once, broken, or not what the interface asks for.
        """
        plugin = self.find(key)
        if plugin is None:
            raise self._unknown(key)
        return plugin

    def find(self, key: str) -> type | None:
        """Return the class registered under a name, or None where nothing is.

        Raises:
            PluginError: declared more than once, broken, or not what the interface asks for.
        """
        local, entries = self.candidates(key)
        if len(entries) + (local is not None) > 1:
            raise self._clash(key, local, entries)
        if entries:
            return self.load(entries[0])
        return None if local is None else self.checked(local, key)

    def names(self) -> list[str]:
        """Every name that can be asked for, a clash as ``package:name`` of each; imports nothing."""
        return self.known.usable()

    def candidates(self, key: str) -> tuple[Any, list[Entry]]:
        """What a name may mean: an object registered in this process or None, and entry points, none loaded.

        Raises:
            PluginError: it is no name at all.
        """
        if not isinstance(key, str):
            raise PluginError(f"{key!r} is not the name of a {self.noun}.", do=self._available())
        return self.known.candidates(key)

    def load(self, entry: Entry) -> type:
        """Import one entry point, with what it prints sent to stderr, and return its class.

        Raises:
            PluginError: it cannot be imported or is not what the interface asks for.
        """
        if entry.key not in self._loaded:
            if wanted := unmet(entry):
                raise PluginError(
                    f"The {self.noun} '{entry.name}' of {entry.origin} needs {wanted}, and this is {__version__}.",
                    do=f"pip install --upgrade {entry.package}, or: pip install '{wanted}'",
                )
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    plugin = entry.point.load()
            except (Exception, SystemExit) as error:
                raise self._load_error(entry, error) from error
            self._loaded[entry.key] = self.checked(plugin, entry.name, f"of {entry.origin}")
        return self._loaded[entry.key]

    def checked(self, plugin: Any, name: str, origin: str = "") -> type:
        """Return the plug-in if it is a complete subclass of the interface.

        Raises:
            PluginError: it is none, lacks methods, or was written for another plug-in API.
        """
        base = self.base
        head = f"The {self.noun} '{name}' {origin or f'({object_path(plugin)})'}"
        if isinstance(plugin, type) and issubclass(plugin, base):
            if wrong := plugin.api_version and api_fault(plugin.api_version):  # type: ignore[attr-defined]
                raise PluginError(f"{head} {wrong}.", do="Update the plug-in, or compt: pip install --upgrade compt")
            missing = sorted(getattr(plugin, "__abstractmethods__", ()))
            if not missing:
                return plugin
            what = f"{head} lacks the method{'s' * (len(missing) > 1)} {', '.join(missing)}."
        else:
            missing = [m for m in sorted(getattr(base, "__abstractmethods__", ())) if not hasattr(plugin, m)]
            lacks = f" and lacks {', '.join(missing)}" if missing else ""
            kind = "" if isinstance(plugin, type) else f" a {type(plugin).__name__},"
            what = f"{head} is{kind} not a subclass of compt.{self._base}{lacks}."
        raise PluginError(what, do=f"Derive it from compt.{self._base} and write all its abstract methods.")

    def build(self, cfg: Mapping[str, Any], default_args: Mapping[str, Any] | None = None) -> Any:
        """Make an instance from ``dict(type=name, **arguments)``; ``default_args`` fill what it leaves out.

        Raises:
            PluginError: as for ``get``.
            ConfigError: no ``type``, arguments that the constructor lacks or does not take, or values that it
                refuses with a TypeError or ValueError. A ComptError of the constructor passes through.
        """
        name, plugin, arguments = self._resolve(cfg, default_args or {})
        faults = self._argument_faults(name, plugin, arguments)
        if faults:
            raise ConfigError(" ".join(faults))
        try:
            return plugin(**arguments)
        except (TypeError, ValueError) as error:
            what = f"The {self.noun} '{name}' cannot be made from its arguments: {_described(error)}"
            raise ConfigError(what, where=_location(error)) from error

    def signature_faults(self, cfg: Mapping[str, Any]) -> list[str]:
        """Say all that is wrong with ``dict(type=name, **arguments)``, one line each, without building it."""
        try:
            return self._argument_faults(*self._resolve(cfg, {}))
        except ComptError as error:
            return [error.one_line]

    def refresh(self) -> None:
        """Forget which entry points were found and loaded, to see packages installed since."""
        self.known.refresh()
        self._loaded.clear()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.candidates(key) != (None, [])

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<registry of {self.noun}s: {', '.join(self.names()) or 'none'}>"

    def _register_module(self, module: Any, module_name: Any = None, force: bool = False) -> None:
        """Register as mmengine does; what is defined again (a cell run twice) replaces its older self."""
        names = getattr(module, "__name__", "") if module_name is None else module_name
        for name in [names] if isinstance(names, str) else names:
            known = self._module_dict.get(name)
            again = known is not None and object_path(known) == object_path(module)
            if known is not None and not force and not again:
                raise PluginError(
                    f"The {self.noun} '{name}' is already registered in this process: {object_path(known)}.",
                    where=object_path(module),
                    do="Register it under another name, or with force=True to replace the other.",
                )
            super()._register_module(module, name, force or again)

    def _resolve(self, cfg: Any, defaults: Mapping[str, Any]) -> tuple[str, type, dict[str, Any]]:
        """The name, class and arguments that a config stands for; its type is a name or the class itself."""
        if not hasattr(cfg, "keys") or "type" not in {*cfg.keys(), *defaults}:
            what = f"{cfg!r} is not a dict(type=..., ...) that names a {self.noun}."
            raise ConfigError(what, do=self._available())
        arguments = {**defaults, **{key: cfg[key] for key in cfg.keys()}}  # noqa: SIM118 - mmengine's Config
        kind = arguments.pop("type")
        name = kind.__name__ if isinstance(kind, type) else kind
        plugin = self.checked(kind, name) if isinstance(kind, type) else self.get(kind)
        return name, plugin, self._renamed(name, plugin, arguments)

    def _renamed(self, name: str, plugin: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments by their names of today."""
        known = getattr(plugin, "renamed", {})
        for old in set(arguments) & set(known):
            text = f"The {self.noun} '{name}': the argument '{old}' is called '{known[old]}' now."
            warnings.warn(text, FutureWarning, stacklevel=2)
        return {known.get(key, key): value for key, value in arguments.items()}

    def _argument_faults(self, name: str, plugin: type, arguments: Mapping[str, Any]) -> list[str]:
        parameters = inspect.signature(plugin).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names, takes_any = [p.name for p in named], any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = [] if takes_any else [a for a in arguments if a not in names]
        missing = [p.name for p in named if p.default is p.empty and p.name not in arguments]
        takes = f"It takes: {', '.join(names)}." if names else "It takes none."
        head = f"The {self.noun} '{name}'"
        return [f"{head} takes no argument '{a}'.{did_you_mean(a, names)} {takes}" for a in unknown] + [
            f"{head} needs the argument '{a}'." for a in missing
        ]

    def _available(self) -> str:
        return f"Available: {', '.join(self.names()) or 'none'}."

    def _unknown(self, key: str) -> PluginError:
        qualified = [e.key for entries in self.known.entries.values() for e in entries] if ":" in key else []
        nearest = did_you_mean(key, [*self.names(), *qualified])
        return PluginError(
            f"No {self.noun} named '{key}'.{nearest} {self._available()} "
            f"Others install by pip: a package that declares the entry-point group '{self.group}'."
        )

    def _clash(self, key: str, local: Any, entries: list[Entry]) -> PluginError:
        owners = " and ".join(entry.origin for entry in entries)
        keys = " or ".join(f"'{entry.key}'" for entry in entries)
        if local is not None:
            return PluginError(
                f"The {self.noun} '{key}' is registered in this process ({object_path(local)}), "
                f"and declared by {owners}.",
                do=f"Register yours under another name; for the installed one write {keys}.",
            )
        return PluginError(
            f"The {self.noun} '{key}' is declared by {len(entries)} packages: {owners}.",
            do=f"Write {keys}, or uninstall all but one of the packages.",
        )

    def _load_error(self, entry: Entry, error: BaseException) -> PluginError:
        head = f"The {self.noun} '{entry.name}' of {entry.origin}"
        own = entry.target.partition(":")[0].partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != own:
            return PluginError(
                f"{head} needs the module '{error.name}', which is not installed.",
                do=f"Install it: {pip_command(error.name, entry)}",
            )
        if entry.point.pattern.match(entry.point.value) is None:
            return PluginError(
                f"{head} has no target of the form 'module:attribute'.", do=f"Mend the package '{entry.package}'."
            )
        return PluginError(
            f"{head} cannot be imported: {_described(error)}",
            where=_location(error),
            do=f"Update or remove the package '{entry.package}'; other plug-ins are not affected.",
        )


def _described(error: BaseException) -> str:
    """Class and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


def _location(error: BaseException) -> str:
    """File and line an error was raised in, past the import machinery."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames[1:] else ""


GROWERS = PluginRegistry("grower", group="compt.growers", base="Grower")
TRANSFERERS = PluginRegistry("transferer", group="compt.transfers", base="Transferer")
PARADIGMS = PluginRegistry("paradigm", group="compt.paradigms", base="Paradigm")
LAYOUTS = PluginRegistry("layout", group="compt.layouts", base="Layout")
REGISTRIES = (GROWERS, TRANSFERERS, PARADIGMS, LAYOUTS)
