"""Finds the plug-ins that installed packages declare, without importing what they name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions, packages_distributions
from typing import Any

from compt._version import __version__

# Modules whose distributions have quite another name.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


@dataclass(frozen=True)
class Entry:
    """One declared entry point, not loaded.

    ``package`` and ``version`` are those of its distribution.
    """

    name: str
    package: str
    version: str
    point: EntryPoint

    @property
    def key(self) -> str:
        """The name that always means this entry, ``package:name``."""
        return f"{normalised(self.package)}:{self.name}"

    @property
    def target(self) -> str:
        """What is loaded, as ``module:attribute``."""
        return self.point.value.partition("[")[0].replace(" ", "")

    @property
    def origin(self) -> str:
        """Package, version and target, for messages."""
        return f"{self.package} {self.version} ({self.target})"

    def holds(self, plugin: Any) -> bool:
        """Whether the target is imported already and is this object."""
        module, _, attribute = self.target.partition(":")
        owner: Any = sys.modules.get(module)
        for name in attribute.split("."):
            owner = getattr(owner, "__dict__", {}).get(name)
        return owner is plugin


class Names:
    """The names of one kind of plug-in, declared by packages or registered in this process.

    Nothing that a name stands for is imported to answer.

    Args:
        group: entry-point group of the packages' plug-ins.
        local: what this process has registered, by name.
    """

    def __init__(self, group: str, local: Mapping[str, Any] | None = None) -> None:
        self.group, self.local = group, {} if local is None else local

    @cached_property
    def entries(self) -> dict[str, list[Entry]]:
        """What packages declare, by name."""
        return installed(self.group)

    def declared(self) -> list[str]:
        """List every name that this process or a package gives a plug-in, each once."""
        return sorted({*self.local, *self.entries})

    def candidates(self, key: str) -> tuple[Any, list[Entry]]:
        """Look up the object of this process, or None, and the entry points a name may mean.

        None of these is loaded. ``package:name`` means that package's entry point alone. An object
        that one of the entry points holds is not listed twice.
        """
        package, colon, name = key.rpartition(":")
        entries = self.entries.get(name, [])
        if colon:
            entries = [
                entry for entry in entries if normalised(entry.package) == normalised(package)
            ]
        local = self.local.get(key)
        return None if any(entry.holds(local) for entry in entries) else local, entries

    def usable(self) -> list[str]:
        """List every name that can be asked for, a clash as ``package:name`` of each."""
        names: list[str] = []
        for name in self.declared():
            local, entries = self.candidates(name)
            unique = len(entries) + (local is not None) == 1
            names += [name] if unique else [entry.key for entry in entries]
        return sorted(names)

    def refresh(self) -> None:
        """Forget what packages declare, to see those installed since."""
        self.__dict__.pop("entries", None)


@dataclass(frozen=True)
class Damaged:
    """A package whose list of entry points cannot be read, so that what it declares is unknown."""

    package: str
    version: str
    error: str


def installed(group: str) -> dict[str, list[Entry]]:
    """Find the entry points of a group, by name, without loading them.

    A package that is damaged is passed over.
    """
    entries: dict[str, list[Entry]] = {}
    owners: dict[str, Distribution] = {}
    for dist in distributions():
        try:
            points = [point for point in dist.entry_points if point.group == group]
        except Exception:  # whatever its file makes the parser raise
            continue
        if not points:
            continue
        package, version = _origin(dist)
        # A second copy of a distribution (stale beside editable) is shadowed, as its modules are.
        if owners.setdefault(normalised(package), dist) is dist:
            for point in points:
                entry = Entry(point.name, package, version, point)
                entries.setdefault(point.name, []).append(entry)
    return {name: sorted(entries[name], key=lambda entry: entry.key) for name in sorted(entries)}


def damaged() -> Iterator[Damaged]:
    """Find packages that mean to declare plug-ins of compt, in a list that cannot be read."""
    for dist in distributions():
        try:
            list(dist.entry_points)
        except Exception as error:
            if "compt." in (dist.read_text("entry_points.txt") or ""):
                yield Damaged(*_origin(dist), f"{type(error).__name__}: {error}")


def unmet(entry: Entry) -> str:
    """Return what the entry's package requires of compt and does not find, '' if nothing."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in (entry.point.dist.requires if entry.point.dist else None) or []:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if (
            normalised(wanted.name) == "compt"
            and applies
            and not wanted.specifier.contains(__version__, True)
        ):
            return f"compt{wanted.specifier}"
    return ""


def _origin(dist: Distribution) -> tuple[str, str]:
    """Read name and version, which is slow, so only of packages that matter."""
    metadata: Any = dist.metadata
    return metadata.get("Name") or "unknown", metadata.get("Version") or "unknown"


def normalised(package: str) -> str:
    """Write a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pip_command(module: str, entry: Entry) -> str:
    """Return the command that installs a module a plug-in misses.

    It installs an extra of the plug-in's package, where one brings the module.
    """
    top = module.partition(".")[0]
    # Where it is there, only a part of it is missing: too old. To ask for its package reads every
    # file's name of every package, about a second.
    present = packages_distributions().get(top) if PathFinder.find_spec(top) else None
    pip = "pip install --upgrade" if present else "pip install"
    guesses = present or [_DISTRIBUTIONS.get(top, top)]
    names = {normalised(name) for name in guesses}
    needs = _requirements(entry)
    begins = tuple(f"{name}-" for name in names)  # the module open_clip comes with open-clip-torch
    hits = [n for n in needs if n[0] in names] or [n for n in needs if n[0].startswith(begins)]
    if not hits or any(extra == "" for _, extra in hits):
        return f"{pip} {hits[0][0] if hits else guesses[0]}"
    return f'{pip} "{entry.package}[{_smallest_extra(hits, needs, entry.name)}]"'


def _smallest_extra(
    hits: Sequence[tuple[str, str]], needs: Sequence[tuple[str, str]], name: str
) -> str:
    """Return the extra of a plug-in's own name, else the one that brings least.

    Args:
        hits: the requirements that would do, each with its extra.
        needs: all requirements of the package.
        name: of the plug-in.
    """
    sizes = [extra for _, extra in needs]
    extras = {extra for _, extra in hits}
    return min(extras, key=lambda extra: (extra != normalised(name), sizes.count(extra), extra))


def _requirements(entry: Entry) -> list[tuple[str, str]]:
    """List what the package of an entry requires, each with the extra that asks for it, or ''."""
    requirements = []
    for line in (entry.point.dist.requires if entry.point.dist else None) or []:
        name = re.match(r"\s*([A-Za-z0-9._-]+)", line)
        extra = re.search(r"""\bextra\s*==\s*['"]([^'"]+)['"]""", line)
        if name:
            requirements.append((normalised(name[1]), normalised(extra[1]) if extra else ""))
    return requirements


def object_path(plugin: Any) -> str:
    """Return where a class or function was defined, as ``module:name``."""
    name = getattr(plugin, "__qualname__", type(plugin).__name__)
    return f"{getattr(plugin, '__module__', '?')}:{name}"
