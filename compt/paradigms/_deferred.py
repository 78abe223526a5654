"""Import a library without those of its modules that few of its users need.

open_clip imports transformers and timm for towers that most models do not have, and torchvision
torch's compiler for one function. Together they take half of the time of a plan.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class Later:
    """Stands for a class or function of a module, which is imported once it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _get(self) -> Any:
        return getattr(import_module(self._module), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by copy, pickle and the like, of any object
            raise AttributeError(name)
        return getattr(self._get(), name)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._get())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._get())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._get(),)


@contextmanager
def deferred(modules: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Put off the import of modules from which no more is imported meanwhile than these names.

    What is imported already is left alone. Another name than those imports its module at once, so
    that a later version of a library costs time and no more.

    Args:
        modules: classes and functions that are called, by the module that they are in.
    """
    stubs = {name: _Stub(name, names) for name, names in modules.items() if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, stub in stubs.items():
            if sys.modules.get(name) is stub:
                del sys.modules[name]
                _show_in_package(name)


class _Stub(ModuleType):
    """Has the place of a module while others are imported."""

    def __init__(self, module: str, names: Sequence[str]) -> None:
        super().__init__(module)
        self.__dict__.update({name: Later(module, name) for name in names})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _show_in_package(module: str) -> None:
    """Let a package that is imported have what was put off, as if it were there."""
    package, _, own = module.rpartition(".")
    if package not in sys.modules:
        return
    theirs = vars(sys.modules[package])
    later = {name: value for name, value in theirs.items() if _is_of(value, module)}
    for name in later:
        del theirs[name]
    fallback = theirs.get("__getattr__")

    def find(name: str) -> Any:
        if name == own:
            return import_module(module)
        if name in later:
            return later[name]._get()
        if fallback is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return fallback(name)

    theirs["__getattr__"] = find


def _is_of(value: Any, module: str) -> bool:
    return type(value) is Later and value._module == module
