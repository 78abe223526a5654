"""Declare the keys of a config as fields of frozen dataclasses, and read them.

A section is a dataclass that derives from :class:`Section`. The annotation of a field says which
values its key takes; :func:`key` adds what an annotation cannot say. Reading, checking, messages
and the tables of docs/config.md all come from the fields, so that a key stands in one place.
"""

from __future__ import annotations

import copy
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar

from compt.config.faults import Faults
from compt.errors import ComptError, did_you_mean
from compt.registry import PluginRegistry
from compt.registry.arguments import shown
from compt.registry.entry_points import object_path
from compt.registry.loading import first_line, raised_at
from compt.registry.values import ValueOptions, alternatives, as_declared, problem_of

METADATA = "compt"
S = TypeVar("S", bound="Section")
Check = Callable[[Any, str, Faults], None]
"""Checks more of a value than its type: the value, its full key, where to note faults."""
Treatment = Literal["compt", "passed on", "translated"]
"""Whose key it is: compt's own, or mmengine's and what becomes of it."""


@dataclass(frozen=True, kw_only=True)
class KeyOptions(ValueOptions):
    """What the annotation of a key cannot say."""

    help: str
    registry: PluginRegistry | None = None
    """For ``dict(type=..., ...)`` of a plug-in, or its name: where it is looked up."""
    variants: Mapping[str, type[Section]] | None = None
    """For a section whose ``type`` chooses its class."""
    merged: bool = False
    """Whether a stage's dict is merged into the chain's; otherwise it replaces it."""
    filled: bool = False
    """Whether a dict keeps the entries of the default that it does not name."""
    resumable: bool = False
    """Whether ``--resume`` accepts another value: it does not touch what is trained."""
    resumable_entries: frozenset[str] = frozenset()
    """Entries of a dict of which the same is true, or which the plan judges."""
    treatment: Treatment = "compt"
    old_name: str = ""
    """The name before, which still works and warns."""
    shown_default: str = ""
    """The default in the documentation, where its repr does not read well."""
    check: Check | None = None


def key(default: Any = MISSING, *, help: str, **options: Any) -> Any:
    """Declare a key of a section.

    Args:
        default: of a key that may be left out; None also stands for that where the annotation has
            no None.
        help: its line in the documentation.
        options: fields of :class:`KeyOptions`.
    """
    metadata = {METADATA: KeyOptions(help=help, **options)}
    if isinstance(default, (dict, list)):  # two configs must not share what one may change
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Key:
    """One key, with its field, resolved annotation and options."""

    field: Field[Any]
    annotation: Any
    options: KeyOptions

    @property
    def name(self) -> str:
        """Name in the config."""
        return self.field.name

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def default(self) -> Any:
        """Value where it is not given, None where it must be."""
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return None if self.required else self.field.default

    @property
    def section(self) -> type[Section] | None:
        """The section that its dict is read as, if any."""
        for option in alternatives(self.annotation):
            if isinstance(option, type) and issubclass(option, Section):
                return option
        return None

    @property
    def takes_none(self) -> bool:
        """Whether None is a value of its own."""
        return type(None) in alternatives(self.annotation)


@dataclass(frozen=True)
class Section:
    """A dict of a config, whose keys are the fields."""

    @classmethod
    def all_keys(cls) -> dict[str, Key]:
        """Return all keys, by name, in the order of the fields."""
        hints = typing.get_type_hints(cls)
        declared = [attribute for attribute in fields(cls) if METADATA in attribute.metadata]
        return {
            attribute.name: Key(attribute, hints[attribute.name], attribute.metadata[METADATA])
            for attribute in declared
        }

    @classmethod
    def read(
        cls: type[S],
        raw: Mapping[str, Any],
        faults: Faults,
        *,
        where: str = "",
        inherited: Iterable[str] = (),
        **others: Any,
    ) -> S:
        """Build the section, note every fault, and go on with the default in its place.

        Args:
            raw: values by key.
            faults: where to note faults.
            where: what stands before the keys in messages, such as 'chain.1.'.
            inherited: keys whose values come from the section around it, for messages.
            others: fields that are no keys.
        """
        keys = cls.all_keys()
        raw = _with_new_names(raw, keys, where, faults)
        at_fault = raw.keys() - keys.keys()
        for name in raw:
            if name not in keys:
                faults.unknown(where, name, keys)
        values: dict[str, Any] = {}
        for name, declared in keys.items():
            full = name if name in inherited else f"{where}{name}"
            num_noted = faults.num_noted
            values[name] = _read(declared, raw, full, faults)
            if faults.num_noted > num_noted:
                at_fault.add(name)
        section = cls(**values, **others)
        section.check(faults, where, frozenset(at_fault))
        return section

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note faults that lie between keys, but for what follows from those ``at_fault``."""

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, as a config writes it."""
        content = {}
        for name, declared in self.all_keys().items():
            value = getattr(self, name)
            if value != declared.default:
                content[name] = value.to_dict() if isinstance(value, Section) else value
        return content


def merge(base: Any, override: Any) -> Any:
    """Merge dicts key by key as mmengine's configs inherit.

    Anything else replaces, as do ``_delete_=True`` and another ``type``.
    """
    if not isinstance(override, Mapping):
        return override
    values = {name: value for name, value in override.items() if name != "_delete_"}
    if not isinstance(base, Mapping) or override.get("_delete_"):
        return values
    if "type" in values and values["type"] != base.get("type"):
        return values
    return {**base, **{name: merge(base.get(name), value) for name, value in values.items()}}


def listed(value: Any) -> list[Any]:
    """Return a value that may stand alone as a list, and None as an empty one."""
    if value is None:
        return []
    alone = isinstance(value, (str, Mapping)) or not isinstance(value, Iterable)
    return [value] if alone else list(value)


def _with_new_names(
    raw: Mapping[str, Any], keys: Mapping[str, Key], where: str, faults: Faults
) -> Mapping[str, Any]:
    """Return the values with old names of keys replaced, and warn of each."""
    new_names = {
        declared.options.old_name: name
        for name, declared in keys.items()
        if declared.options.old_name
    }
    for old in raw.keys() & new_names.keys():
        text = f"{where}{old} is called {where}{new_names[old]} now; the old name will go."
        warnings.warn(text, FutureWarning, stacklevel=2)
        if new_names[old] in raw:
            faults.add(f"{where}{old} and {where}{new_names[old]} are one key: give one of them.")
    return {new_names.get(name, name): value for name, value in raw.items()}


def _read(declared: Key, raw: Mapping[str, Any], full: str, faults: Faults) -> Any:
    """Return the value of a key, or its default where it is not given or at fault."""
    value = raw.get(declared.name)
    if value is None and not (declared.name in raw and _none_is_a_fault(declared)):
        if declared.required:
            faults.add(f"{full} is missing.")
        return declared.default
    num_noted = faults.num_noted
    if declared.options.registry is not None:
        value = {"type": value} if isinstance(value, str) else value
        _check_plugin(declared.options.registry, value, full, faults)
    elif declared.section is not None and isinstance(value, Mapping):
        value = _read_section(declared, value, full, faults)
    elif problem := problem_of(value, declared.annotation, declared.options):
        faults.add(f"{full}: {shown(value)} {problem}")
    if faults.num_noted == num_noted:
        value = as_declared(value, declared.annotation)
        if declared.options.filled and isinstance(value, Mapping):
            value = {**declared.default, **value}
        if declared.options.check is not None:
            declared.options.check(value, full, faults)
    return value if faults.num_noted == num_noted else declared.default


def _none_is_a_fault(declared: Key) -> bool:
    """Tell whether None in the place of a number is a mistake rather than 'as by default'.

    ``grown=dict(lr_mult=None)`` asks for something; ``transfer=None`` unsets what a base has.
    """
    numbers = {int, float} & set(alternatives(declared.annotation))
    return bool(numbers) and not declared.takes_none


def _read_section(declared: Key, value: Mapping[str, Any], full: str, faults: Faults) -> Any:
    """Read the dict of a key as its section, whose class ``type`` may choose."""
    section = declared.section
    assert section is not None
    if declared.options.variants is None:
        return section.read(value, faults, where=f"{full}.")
    kind, variants = value.get("type"), declared.options.variants
    if not isinstance(kind, str) or kind not in variants:
        known = " or ".join(map(repr, variants))
        faults.add(f"{full}: type={kind!r} is not {known}.{did_you_mean(kind, variants)}")
        return declared.default
    rest = {name: content for name, content in value.items() if name != "type"}
    num_noted = faults.num_noted
    result = variants[kind].read(rest, faults, where=f"{full}.")
    return result if faults.num_noted == num_noted else declared.default


def _check_plugin(registry: PluginRegistry, value: Any, full: str, faults: Faults) -> None:
    """Check a plug-in's name and arguments, and whether it can be made from them."""
    if not isinstance(value, Mapping) or "type" not in value:
        faults.add(f"{full}: {shown(value)} is not a dict(type=..., ...).")
        return
    if isinstance(value["type"], type):
        # A class has no text that a resumed run could read back.
        faults.add(
            f"{full}: type is the class {object_path(value['type'])}; "
            "register it and write its name, which a resumed run can read."
        )
        return
    noted = registry.argument_faults(value)
    for fault in noted:
        faults.add(f"{full}.{fault}" if fault.path else f"{full}: {fault}")
    if not noted:
        _check_making(registry, value, full, faults)


def _check_making(
    registry: PluginRegistry, value: Mapping[str, Any], full: str, faults: Faults
) -> None:
    """Make the plug-in once, as constructors refuse what annotations cannot say."""
    try:
        registry.build(copy.deepcopy(dict(value)))
    except ComptError as error:
        faults.add(f"{full}: {error.one_line}")
    except Exception as error:  # a constructor raises what it likes
        faults.add(f"{full}: {first_line(error)} ({raised_at(error)})")
