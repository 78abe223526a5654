"""Find plug-ins by name with mmengine's decorator and config form over entry points.

A name is looked up among the classes registered in this process (``register_module``) and the
entry points of installed packages; only the one asked for is imported. ``package:name`` always
means the entry point of that package, so ``compt:lossless`` is the built-in whatever else is
installed. Names are whole, dots included: no part of one is a scope, a module or a path to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from compt.errors import ComptError, ConfigError, PluginError, did_you_mean
from compt.registry.arguments import ArgumentFault, in_own_types, name_faults, value_faults
from compt.registry.entry_points import Entry, Names, normalised, object_path, pip_command
from compt.registry.loading import Interface, first_line, raised_at

BUILT_IN = "compt"
"""The package whose plug-ins are the defaults."""


class PluginRegistry:
    """Find the plug-ins of one interface by name.

    ``get`` returns a class, ``build`` an instance.

    Args:
        noun: what messages call one plug-in.
        group: entry-point group that packages declare.
        base: name of the class in ``compt.interfaces`` that plug-ins derive from.
    """

    def __init__(self, noun: str, *, group: str, base: str) -> None:
        self.noun, self.group = noun, group
        self.interface = Interface(noun, base)
        self.module_dict: dict[str, type] = {}
        """What this process has registered, by name."""
        self.known = Names(group, self.module_dict)
        self._replacing: set[str] = set()
        self._loaded: dict[str, type] = {}

    def register_module(
        self,
        name: str | Sequence[str] | None = None,
        force: bool = False,
        module: type | None = None,
    ) -> Any:
        """Register a class in this process, as a decorator or directly.

        The form is mmengine's. A class that is defined again under its own path (a notebook cell
        run twice) replaces its older self.

        Args:
            name: one name or several; that of the class by default.
            force: replace what this process registered, and what packages declare, under the name.
            module: the class, where this is not used as a decorator.

        Raises:
            PluginError: the name is taken in this process.
        """

        def register(plugin: Any) -> Any:
            names = getattr(plugin, "__name__", "") if name is None else name
            for key in [names] if isinstance(names, str) else names:
                self._register(key, plugin, force)
            return plugin

        return register if module is None else register(module)

    def get(self, key: str) -> type:
        """Return the class registered under a name, importing it and no other plug-in.

        Raises:
            PluginError: unknown, declared more than once, broken, or not what the interface asks
                for.
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
        return None if local is None else self.check(local, key)

    def build(self, cfg: Mapping[str, Any], default_args: Mapping[str, Any] | None = None) -> Any:
        """Make an instance from ``dict(type=name, **arguments)``.

        Args:
            cfg: the name, or the class itself, under ``type``; all else goes to the constructor.
            default_args: arguments that ``cfg`` may leave out.

        Raises:
            PluginError: as for ``get``.
            ConfigError: no ``type``, arguments that the constructor lacks or does not take, values
                that do not fit its annotations, or that it refuses with a TypeError or ValueError.
                A ComptError of the constructor passes through.
        """
        name, plugin, arguments = self._resolve(cfg, default_args or {})
        if faults := self._argument_faults(name, plugin, arguments):
            raise ConfigError(" ".join(self._sentences(name, faults)))
        try:
            return plugin(**in_own_types(plugin, arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"The {self.noun} '{name}' cannot be made from its arguments: {first_line(error)}",
                where=raised_at(error),
            ) from error

    def argument_faults(self, cfg: Mapping[str, Any]) -> list[ArgumentFault]:
        """List all that is wrong with ``dict(type=name, **arguments)``, without building it."""
        try:
            return self._argument_faults(*self._resolve(cfg, {}))
        except ComptError as error:
            return [ArgumentFault(error.one_line)]

    def signature_faults(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return :meth:`argument_faults` as sentences."""
        faults = self.argument_faults(cfg)
        name = cfg["type"] if any(fault.path for fault in faults) else ""
        return self._sentences(name, faults)

    def names(self) -> list[str]:
        """List every name that can be asked for, without importing anything.

        A clash is listed as ``package:name`` of each.
        """
        return self.known.usable()

    def candidates(self, key: str) -> tuple[Any, list[Entry]]:
        """Look up an object of this process, or None, and the entry points of a name.

        Nothing is loaded.

        Raises:
            PluginError: it is no name at all.
        """
        if not isinstance(key, str):
            raise PluginError(f"{key!r} is not the name of a {self.noun}.", do=self._available())
        local, entries = self.known.candidates(key)
        forced = local is not None and key in self._replacing
        return (local, []) if forced else (local, entries)

    def load(self, entry: Entry) -> type:
        """Import one entry point, once, and return its class.

        Raises:
            PluginError: it cannot be imported or is not what the interface asks for.
        """
        if entry.key not in self._loaded:
            self._loaded[entry.key] = self.interface.load(entry)
        return self._loaded[entry.key]

    def check(self, plugin: Any, name: str) -> type:
        """Return a plug-in of this process if it is a complete subclass of the interface.

        Raises:
            PluginError: it is none, lacks methods, or was written for another plug-in API.
        """
        return self.interface.check(plugin, name)

    def install_command(self, key: str, module: str) -> str:
        """Return the command that installs a module which a plug-in misses."""
        _, entries = self.candidates(key)
        return pip_command(module, entries[0]) if entries else f"pip install {module}"

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

    def _register(self, name: str, plugin: Any, force: bool) -> None:
        known = self.module_dict.get(name)
        again = known is not None and object_path(known) == object_path(plugin)
        if known is not None and not force and not again:
            raise PluginError(
                f"The {self.noun} '{name}' is already registered in this process: "
                f"{object_path(known)}.",
                where=object_path(plugin),
                do="Register it under another name, or with force=True to replace the other.",
            )
        self.module_dict[name] = plugin
        if force:
            self._replacing.add(name)

    def _resolve(self, cfg: Any, defaults: Mapping[str, Any]) -> tuple[str, type, dict[str, Any]]:
        """Read name, class and arguments out of a config whose type is a name or the class."""
        if not hasattr(cfg, "keys") or "type" not in {*cfg.keys(), *defaults}:
            what = f"{cfg!r} is not a dict(type=..., ...) that names a {self.noun}."
            raise ConfigError(what, do=self._available())
        names = list(cfg.keys())  # mmengine's Config has keys, and iterates over none
        arguments = {**defaults, **{name: cfg[name] for name in names}}
        kind = arguments.pop("type")
        if isinstance(kind, type):
            name, plugin = kind.__name__, self.check(kind, kind.__name__)
        else:
            name, plugin = kind, self.get(kind)
        return name, plugin, self._renamed(name, plugin, arguments)

    def _renamed(self, name: str, plugin: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments under their names of today, with a warning for each old one."""
        known = getattr(plugin, "renamed", {})
        for old in set(arguments) & set(known):
            warnings.warn(
                f"The {self.noun} '{name}': the argument '{old}' is called '{known[old]}' now.",
                FutureWarning,
                stacklevel=2,
            )
        return {known.get(key, key): value for key, value in arguments.items()}

    def _argument_faults(
        self, name: str, plugin: Callable[..., Any], arguments: Mapping[str, Any]
    ) -> list[ArgumentFault]:
        head = f"The {self.noun} '{name}'"
        return [*name_faults(head, plugin, arguments), *value_faults(plugin, arguments)]

    def _sentences(self, name: Any, faults: Sequence[ArgumentFault]) -> list[str]:
        """Write faults for where no key of a config stands before them."""
        head = f"The {self.noun} '{name}': "
        return [f"{head if fault.path else ''}{fault}" for fault in faults]

    def _available(self) -> str:
        return f"Available: {', '.join(self.names()) or 'none'}."

    def _unknown(self, key: str) -> PluginError:
        entries = [entry for declared in self.known.entries.values() for entry in declared]
        qualified = [entry.key for entry in entries] if ":" in key else []
        nearest = did_you_mean(key, [*self.names(), *qualified])
        return PluginError(
            f"No {self.noun} named '{key}'.{nearest} {self._available()} Others install by pip: "
            f"a package that declares the entry-point group '{self.group}'."
        )

    def _clash(self, key: str, local: Any, entries: list[Entry]) -> PluginError:
        owners = " and ".join(entry.origin for entry in entries)
        keys = " or ".join(f"'{entry.key}'" for entry in entries)
        if local is not None:
            return PluginError(
                f"The {self.noun} '{key}' is registered in this process ({object_path(local)}), "
                f"and declared by {owners}.",
                do="Register yours under another name, or with force=True to use it in place of "
                f"the installed one; for that one write {keys}.",
            )
        return PluginError(
            f"The {self.noun} '{key}' is declared by {len(entries)} packages: {owners}.",
            do=f"Write {keys}, or uninstall all but one of the packages.",
        )


class LayoutRegistry(PluginRegistry):
    """Find layouts by the path of the module class that they describe.

    A config does not write these names, so that a second layout for one class could break a chain
    that ran before. compt's own is the default there, and ``layouts`` in the config chooses.
    """

    def __init__(self, noun: str, *, group: str, base: str) -> None:
        super().__init__(noun, group=group, base=base)
        self._choices: ContextVar[Mapping[str, str]] = ContextVar("chosen layouts")

    @contextmanager
    def choosing(self, choices: Mapping[str, str]) -> Iterator[None]:
        """Choose the layouts of module classes within, as the config key ``layouts`` does.

        Args:
            choices: ``package:name`` by module class.

        Raises:
            PluginError: nothing is registered under a choice.
        """
        for choice in choices.values():
            if self.candidates(choice) == (None, []):
                raise self._unknown(choice)
        token = self._choices.set({**self._choices.get({}), **choices})
        try:
            yield
        finally:
            self._choices.reset(token)

    def find(self, key: str) -> type | None:
        """Return the layout of a module class, or None where nothing describes it.

        Raises:
            PluginError: several packages describe the class, none of them compt; or it is broken.
        """
        key = self._choices.get({}).get(key, key)
        local, entries = self.candidates(key)
        built_in = [entry for entry in entries if normalised(entry.package) == BUILT_IN]
        if local is None and len(entries) > 1 and built_in:
            return self.load(built_in[0])
        return super().find(key)

    def _clash(self, key: str, local: Any, entries: list[Entry]) -> PluginError:
        error = super()._clash(key, local, entries)
        choice = f"layouts={{'{key}': '{entries[0].key}'}}"
        do = f"Choose one in the config: {choice}."
        if local is not None:
            do += " To use yours, register it with force=True."
        return PluginError(error.what, do=do)


def short_name(name: str) -> str:
    """Return the name of a plug-in in reports, which is without the package for built-ins."""
    package, colon, rest = name.partition(":")
    return rest if colon and normalised(package) == BUILT_IN else name


GROWERS = PluginRegistry("grower", group="compt.growers", base="Grower")
TRANSFERERS = PluginRegistry("transferer", group="compt.transfers", base="Transferer")
PARADIGMS = PluginRegistry("paradigm", group="compt.paradigms", base="Paradigm")
LAYOUTS = LayoutRegistry("layout", group="compt.layouts", base="Layout")
DATA = PluginRegistry("data source", group="compt.data", base="DataSource")
SUITES = PluginRegistry("suite", group="compt.suites", base="Suite")
TRACKERS = PluginRegistry("tracker", group="compt.trackers", base="Tracker")
REGISTRIES: tuple[PluginRegistry, ...] = (
    GROWERS,
    TRANSFERERS,
    PARADIGMS,
    LAYOUTS,
    DATA,
    SUITES,
    TRACKERS,
)
