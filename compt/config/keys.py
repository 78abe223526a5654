"""Keys of a config as fields of frozen dataclasses: their types, defaults, checks and help.

A section is a dataclass that derives from :class:`Section`. The annotation of a field says which
values its key takes; :func:`key` adds what an annotation cannot say. Reading, checking, messages
and the tables of docs/config.md all come from the fields, so that a key stands in one place.
"""

from __future__ import annotations

import copy
import math
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from compt.config.faults import Faults
from compt.errors import ComptError, did_you_mean
from compt.registry import PluginRegistry
from compt.registry.entry_points import object_path

METADATA = "compt"
S = TypeVar("S", bound="Section")
Check = Callable[[Any, str, Faults], None]
"""Checks more of a value than its type: the value, its full key, where to note faults."""
Treatment = Literal["compt", "passed on", "translated"]
"""Whose key it is: compt's own, or mmengine's and what becomes of it."""


@dataclass(frozen=True)
class KeyOptions:
    """What the annotation of a key cannot say."""

    help: str
    minimum: float | None = None
    """Smallest number, itself allowed."""
    maximum: float | None = None
    positive: bool = False
    """Whether a number must be above 0."""
    zero_is_judged: bool = False
    """Whether a positive number may be 0 here, as a check of the section decides about it."""
    registry: PluginRegistry | None = None
    """For ``dict(type=..., ...)`` of a plug-in, or its name: where it is looked up."""
    variants: Mapping[str, type[Section]] | None = None
    """For a section whose ``type`` chooses its class."""
    typed: bool = False
    """Whether a dict, or every dict of a list, must have a ``type``."""
    merged: bool = False
    """Whether a stage's dict is merged into the chain's; otherwise it replaces it."""
    filled: bool = False
    """Whether a dict keeps the entries of the default that it does not name."""
    resumable: bool = False
    """Whether ``--resume`` accepts another value: it does not touch what is trained."""
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
    """One key: its field, resolved annotation and options."""

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
        """Value where it is not given; None where it must be."""
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return None if self.required else self.field.default

    @property
    def section(self) -> type[Section] | None:
        """The section that its dict is read as, if any."""
        for option in _alternatives(self.annotation):
            if isinstance(option, type) and issubclass(option, Section):
                return option
        return None

    @property
    def takes_none(self) -> bool:
        """Whether None is a value of its own."""
        return type(None) in _alternatives(self.annotation)


@dataclass(frozen=True)
class Section:
    """A dict of a config; its fields are the keys."""

    @classmethod
    def all_keys(cls) -> dict[str, Key]:
        """Return all keys, by name, in the order of the fields."""
        hints = typing.get_type_hints(cls)
        return {
            one.name: Key(one, hints[one.name], one.metadata[METADATA])
            for one in fields(cls)
            if METADATA in one.metadata
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
        """Build the section; note every fault, and go on with the default in its place.

        Args:
            raw: values by key.
            faults: where to note faults.
            where: what stands before the keys in messages, such as 'chain.1.'.
            inherited: keys whose values come from the section around it, for messages.
            others: fields that are no keys.
        """
        keys = cls.all_keys()
        raw = _with_new_names(raw, keys, where)
        at_fault = raw.keys() - keys.keys()
        for name in raw:
            if name not in keys:
                faults.unknown(where, name, keys)
        values: dict[str, Any] = {}
        for name, one in keys.items():
            full = name if name in inherited else f"{where}{name}"
            num_noted = faults.num_noted
            values[name] = _read(one, raw, full, faults)
            if faults.num_noted > num_noted:
                at_fault.add(name)
        section = cls(**values, **others)
        section.check(faults, where, frozenset(at_fault))
        return section

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note faults that lie between keys, but for what follows from those ``at_fault``."""

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, as a config writes it."""
        values = {name: getattr(self, name) for name in self.all_keys()}
        return {
            name: value.to_dict() if isinstance(value, Section) else value
            for name, value in values.items()
            if value != self.all_keys()[name].default
        }


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
    """Return a value that may stand alone as a list; None as an empty one."""
    if value is None:
        return []
    alone = isinstance(value, (str, Mapping)) or not isinstance(value, Iterable)
    return [value] if alone else list(value)


def _with_new_names(
    raw: Mapping[str, Any], keys: Mapping[str, Key], where: str
) -> Mapping[str, Any]:
    """Return the values with old names of keys replaced, and warn of each."""
    new_names = {one.options.old_name: name for name, one in keys.items() if one.options.old_name}
    for old in raw.keys() & new_names.keys():
        text = f"{where}{old} is called {where}{new_names[old]} now; the old name will go."
        warnings.warn(text, FutureWarning, stacklevel=2)
    return {new_names.get(name, name): value for name, value in raw.items()}


def _read(one: Key, raw: Mapping[str, Any], full: str, faults: Faults) -> Any:
    """Return the value of a key, or its default where it is not given or at fault."""
    value = raw.get(one.name)
    if value is None and not (one.name in raw and _none_is_a_fault(one)):
        if one.required:
            faults.add(f"{full} is missing.")
        return one.default
    num_noted = faults.num_noted
    if one.options.registry is not None:
        value = {"type": value} if isinstance(value, str) else value
        _check_plugin(one.options.registry, value, full, faults)
    elif one.section is not None and isinstance(value, Mapping):
        value = _read_section(one, value, full, faults)
    elif problem := _problem(value, one.annotation, one.options):
        faults.add(f"{full}: {value!r} {problem}")
    if faults.num_noted == num_noted:
        if one.options.filled and isinstance(value, Mapping):
            value = {**one.default, **value}
        if one.options.check is not None:
            one.options.check(value, full, faults)
    return value if faults.num_noted == num_noted else one.default


def _none_is_a_fault(one: Key) -> bool:
    """Tell whether None in the place of a number is a mistake rather than 'as by default'.

    ``grown=dict(lr_mult=None)`` asks for something; ``transfer=None`` unsets what a base has.
    """
    numbers = {int, float} & set(_alternatives(one.annotation))
    return bool(numbers) and not one.takes_none


def _read_section(one: Key, value: Mapping[str, Any], full: str, faults: Faults) -> Any:
    """Read the dict of a key as its section; where ``type`` chooses the class, by that."""
    section = one.section
    assert section is not None
    if one.options.variants is None:
        return section.read(value, faults, where=f"{full}.")
    kind, variants = value.get("type"), one.options.variants
    if not isinstance(kind, str) or kind not in variants:
        known = " or ".join(map(repr, variants))
        faults.add(f"{full}: type={kind!r} is not {known}.{did_you_mean(kind, variants)}")
        return one.default
    rest = {name: content for name, content in value.items() if name != "type"}
    num_noted = faults.num_noted
    result = variants[kind].read(rest, faults, where=f"{full}.")
    return result if faults.num_noted == num_noted else one.default


def _check_plugin(registry: PluginRegistry, value: Any, full: str, faults: Faults) -> None:
    """Check a plug-in's name and arguments, without building it."""
    if not isinstance(value, Mapping) or "type" not in value:
        faults.add(f"{full}: {value!r} is not a dict(type=..., ...).")
    elif isinstance(value["type"], type):
        # A class has no text that a resumed run could read back.
        faults.add(
            f"{full}: type is the class {object_path(value['type'])}; "
            "register it and write its name, which a resumed run can read."
        )
    else:
        try:
            for fault in registry.signature_faults(dict(value)):
                faults.add(f"{full}: {fault}")
        except ComptError as error:
            faults.add(f"{full}: {error.one_line}")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return what a union allows; any other annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _problem(value: Any, annotation: Any, options: KeyOptions) -> str:
    """Say what is wrong with a value, as the end of a sentence; '' where it fits."""
    problems = [
        _alternative_problem(value, alternative, options)
        for alternative in _alternatives(annotation)
        if alternative is not type(None)
    ]
    if not all(problems):
        return ""
    if len(problems) == 1:
        return problems[0]
    wanted = " or ".join(problem.removeprefix("is not ").removesuffix(".") for problem in problems)
    return f"is not {wanted}."


def _alternative_problem(value: Any, alternative: Any, options: KeyOptions) -> str:
    origin = get_origin(alternative) or alternative
    if origin is Any:
        return ""
    if origin is Literal:
        return _choice_problem(value, get_args(alternative))
    if origin is bool:
        return "" if isinstance(value, bool) else "is not True or False."
    if origin in (int, float):
        return _number_problem(value, origin, options)
    if origin is Path:
        sound = isinstance(value, (str, Path)) and "\0" not in str(value)
        return "" if sound else "is not a path."
    if origin is str:
        return "" if isinstance(value, str) else "is not a string."
    if isinstance(origin, type) and issubclass(origin, Section):
        return "" if isinstance(value, Mapping) else "is not a dict."
    if origin in (Mapping, dict):
        return _dict_problem(value, options)
    assert origin in (Sequence, list, tuple), f"no check for {alternative}"
    return _list_problem(value, get_args(alternative), options)


def _choice_problem(value: Any, choices: Sequence[Any]) -> str:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return ""
    return f"is none of {', '.join(map(repr, choices))}.{did_you_mean(str(value), choices)}"


def _dict_problem(value: Any, options: KeyOptions) -> str:
    if isinstance(value, Mapping) and ("type" in value or not options.typed):
        return ""
    return "is not a dict(type=..., ...)." if options.typed else "is not a dict."


def _list_problem(value: Any, contents: tuple[Any, ...], options: KeyOptions) -> str:
    content = contents[0] if contents else Any
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    if is_list and not any(_alternative_problem(one, content, options) for one in value):
        return ""
    return "is not a list of dict(type=..., ...)." if options.typed else "is not a list."


def _number_problem(value: Any, kind: type, options: KeyOptions) -> str:
    """Say what is wrong with a number; whole ones may be written as floats (``samples=1e6``)."""
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
    """Tell whether a value is a number that a float can hold; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # 10**400 is a Python integer
        return False


def _wanted_number(kind: type, options: KeyOptions) -> str:
    noun = "a positive number" if options.positive else "a number"
    if kind is int:
        noun = "a positive whole number" if options.positive else "a whole number"
    if options.minimum is not None and options.maximum is not None:
        return f"{noun} from {options.minimum} to {options.maximum}"
    if options.minimum is not None:
        return f"{noun} of at least {options.minimum}"
    return noun if options.maximum is None else f"{noun} up to {options.maximum}"
