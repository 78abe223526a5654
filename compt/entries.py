"""Plug-ins as installed packages declare them: entry points, found without importing what they name."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points, packages_distributions
from typing import Any

# Modules whose distributions have quite another name.
_DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}


@dataclass(frozen=True)
class Entry:
    """One declared entry point, not loaded; ``package`` and ``version`` are those of its distribution."""

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


def installed(group: str) -> dict[str, list[Entry]]:
    """Find the entry points of a group, by name, without loading them."""
    found: dict[str, list[Entry]] = {}
    owners: dict[str, Distribution] = {}
    seen: dict[int, tuple[str, str]] = {}  # reading metadata is slow: once a distribution
    for point in entry_points(group=group):
        dist = point.dist
        assert dist is not None
        if id(dist) not in seen:
            metadata: Any = dist.metadata
            seen[id(dist)] = (metadata.get("Name") or "unknown"), (metadata.get("Version") or "unknown")
        package, version = seen[id(dist)]
        # A second copy of a distribution (stale beside editable) is shadowed, as its modules are.
        if owners.setdefault(normalised(package), dist) is dist:
            found.setdefault(point.name, []).append(Entry(point.name, package, version, point))
    return {name: sorted(entries, key=lambda entry: entry.key) for name, entries in sorted(found.items())}


def normalised(package: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pip_command(module: str, entry: Entry) -> str:
    """The command that installs a module a plug-in misses: an extra of its package, where one brings it."""
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
    best = min(extras, key=lambda extra: (extra != normalised(entry.name), sizes.count(extra), extra))
    return f'{pip} "{entry.package}[{best}]"'


def _requirements(entry: Entry) -> list[tuple[str, str]]:
    """What the package of an entry requires: distribution and extra, '' where it is always required."""
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
