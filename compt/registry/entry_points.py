"""Plug-ins as installed packages declare them: entry points, found without importing what they
name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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
    """One declared entry point, not loaded; ``package`` and ``version`` are those of its
    distribution.
    """

    name: str
    package: str
    version: str
    point: EntryPoint

    @property
    def key(self) -> str:
        """The name that always means this entry: ``package:name``."""
        return f"{normalised(self.package)}:{self.name}"

    @property
    def target(self) -> str:
        """What is loaded: ``module:attribute``."""
        return self.point.value.partition("[")[0].replace(" ", "")

    @property
    def origin(self) -> str:
        """Package, version and target, for messages."""
        return f"{self.package} {self.version} ({self.target})"

    def holds(self, plugin: Any) -> bool:
        """Whether the target is imported already and is this object; imports nothing."""
        module, _, attribute = self.target.partition(":")
        found: Any = sys.modules.get(module)
        for part in attribute.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        return found is plugin


class Names:
    """The names of one kind of plug-in: those that packages declare and those registered in this
    process.

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
        """Every name that this process or a package gives a plug-in, each once."""
        return sorted({*self.local, *self.entries})

    def candidates(self, key: str) -> tuple[Any, list[Entry]]:
        """What a name may mean: an object registered in this process or None, and entry points,
        none loaded.

        ``package:name`` means that package's entry point alone. An object that one of the entry
        points holds is not listed twice.
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
        """Every name that can be asked for, a clash as ``package:name`` of each."""
        found: list[str] = []
        for name in self.declared():
            local, entries = self.candidates(name)
            found += (
                [name]
                if len(entries) + (local is not None) == 1
                else [entry.key for entry in entries]
            )
        return sorted(found)

    def refresh(self) -> None:
        """Forget what packages declare, to see those installed since."""
        self.__dict__.pop("entries", None)


@dataclass(frozen=True)
class Damaged:
    """A package whose list of entry points cannot be read; what it declares is not known."""

    package: str
    version: str
    error: str


def installed(group: str) -> dict[str, list[Entry]]:
    """Find the entry points of a group, by name, without loading them; a package that is damaged is
    passed over.
    """
    found: dict[str, list[Entry]] = {}
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
                found.setdefault(point.name, []).append(Entry(point.name, package, version, point))
    return {
        name: sorted(entries, key=lambda entry: entry.key)
        for name, entries in sorted(found.items())
    }


def damaged() -> Iterator[Damaged]:
    """Packages that mean to declare plug-ins of compt, in a list of entry points that cannot be
    read.
    """
    for dist in distributions():
        try:
            list(dist.entry_points)
        except Exception as error:
            if "compt." in (dist.read_text("entry_points.txt") or ""):
                yield Damaged(*_origin(dist), f"{type(error).__name__}: {error}")


def unmet(entry: Entry) -> str:
    """What the entry's package requires of compt and does not find, as a requirement; '' where all
    is well.
    """
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
    """Name and version; reading them is slow, so only of packages that matter."""
    metadata: Any = dist.metadata
    return metadata.get("Name") or "unknown", metadata.get("Version") or "unknown"


def normalised(package: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pip_command(module: str, entry: Entry) -> str:
    """The command that installs a module a plug-in misses: an extra of its package, where one
    brings it.
    """
    top = module.partition(".")[0]
    present = packages_distributions().get(top)  # then only a part of it is missing: too old
    pip = "pip install --upgrade" if present else "pip install"
    guesses = present or [_DISTRIBUTIONS.get(top, top)]
    names = {normalised(name) for name in guesses}
    needs = _requirements(entry)
    begins = tuple(f"{name}-" for name in names)  # the module open_clip comes with open-clip-torch
    hits = [n for n in needs if n[0] in names] or [n for n in needs if n[0].startswith(begins)]
    extras = {extra for _, extra in hits}
    if not hits or "" in extras:
        return f"{pip} {hits[0][0] if hits else guesses[0]}"
    sizes = [extra for _, extra in needs]
    best = min(
        extras, key=lambda extra: (extra != normalised(entry.name), sizes.count(extra), extra)
    )
    return f'{pip} "{entry.package}[{best}]"'


def _requirements(entry: Entry) -> list[tuple[str, str]]:
    """What the package of an entry requires: distribution and extra, '' where it is always
    required.
    """
    found = []
    for line in (entry.point.dist.requires if entry.point.dist else None) or []:
        name = re.match(r"\s*([A-Za-z0-9._-]+)", line)
        extra = re.search(r"""\bextra\s*==\s*['"]([^'"]+)['"]""", line)
        if name:
            found.append((normalised(name[1]), normalised(extra[1]) if extra else ""))
    return found


def object_path(plugin: Any) -> str:
    """Where a class or function was defined: ``module:name``."""
    return f"{getattr(plugin, '__module__', '?')}:{getattr(plugin, '__qualname__', type(plugin).__name__)}"
