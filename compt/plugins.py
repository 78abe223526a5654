"""Plug-ins as packages declare them: entry points, missing dependencies, ``compt list`` and ``compt check``.

:mod:`compt.registry` finds plug-ins with the first half; the second half reads the registries, which it
imports only when called.
"""

from __future__ import annotations

import contextlib
import io
import json as jsonlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points, packages_distributions
from typing import TYPE_CHECKING, Any

from compt.errors import ComptError, PluginError

if TYPE_CHECKING:
    from rich.table import Table

    from compt.registry import PluginRegistry

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


def one_line(error: ComptError) -> str:
    """What is wrong, where, and what to do, on one line."""
    where = f"({error.where})" if error.where else ""
    return " ".join(f"{error.what} {where} {error.do}".split())


@dataclass(frozen=True)
class PluginInfo:
    """One plug-in as declared; ``type`` is what a config writes for it.

    ``package`` and ``version`` are empty for a class registered in this process; ``target`` is then the
    path of the class. ``clash`` tells that something else has the same name; ``type`` is then
    ``package:name``, and empty for a class registered in this process.
    """

    registry: str
    name: str
    package: str
    version: str
    target: str
    type: str
    clash: bool = False


@dataclass(frozen=True)
class PluginCheck:
    """Whether one plug-in could be loaded, and why not."""

    plugin: PluginInfo
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it loaded and keeps its contract."""
        return not self.error


def listing() -> list[PluginInfo]:
    """Say which plug-ins there are, by registry, name and package; imports none of them."""
    return [info for info, _, _ in _rows()]


def check() -> list[PluginCheck]:
    """Load every plug-in, one at a time, and say what is wrong with each; what they print is dropped."""
    checks = []
    for info, registry, source in list(_rows()):  # before loading registers more
        error = ""
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(sys.stderr):
            try:
                if isinstance(source, Entry):
                    registry.load(source)
                else:
                    registry.checked(source, info.name)
            except PluginError as fault:
                error = one_line(fault)
        checks.append(PluginCheck(info, error))
    return checks


def as_dicts(rows: Sequence[PluginInfo | PluginCheck]) -> list[dict[str, Any]]:
    """Rows for JSON; those of a check have ``ok`` and ``error`` besides."""
    found = []
    for row in rows:
        checked = {"ok": row.ok, "error": row.error} if isinstance(row, PluginCheck) else {}
        found.append({**asdict(_info(row)), **checked})
    return found


def as_table(rows: Sequence[PluginInfo | PluginCheck]) -> Table:
    """One row a plug-in, with a line between registries."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    checked = any(isinstance(row, PluginCheck) for row in rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("registry", "name", "package", "version", "target", *(["check"] if checked else [])):
        table.add_column(column, overflow="fold")
    before = ""
    for row in rows:
        info = _info(row)
        if before not in ("", info.registry):
            table.add_section()
        before = info.registry
        advice = f"write {info.type}" if info.type else "register it under another name"
        name = f"{info.name} (clash: {advice})" if info.clash else info.name
        cells = [info.registry, name, info.package or "(this process)", info.version, info.target]
        if isinstance(row, PluginCheck):
            cells.append(row.error or "ok")
        table.add_row(*(Text(cell) for cell in cells))  # Text: brackets are no markup
    return table


def list_command(json: bool) -> int:
    """Print what ``listing`` finds; return the exit code, 0."""
    _print(listing(), json)
    return 0


def check_command(json: bool) -> int:
    """Print what ``check`` finds; return the exit code, 2 where a plug-in failed."""
    checks = check()
    _print(checks, json)
    return 0 if all(row.ok for row in checks) else 2


def _print(rows: Sequence[PluginInfo | PluginCheck], json: bool) -> None:
    if json:
        print(jsonlib.dumps(as_dicts(rows), indent=1))
        return
    from rich.console import Console

    console, table = Console(), as_table(rows)
    if not console.is_terminal:  # a file or a pipe has no width to fold to
        unlimited = console.options.update(width=10_000)
        console.width = max(console.width, console.measure(table, options=unlimited).maximum)
    console.print(table)


def _info(row: PluginInfo | PluginCheck) -> PluginInfo:
    return row.plugin if isinstance(row, PluginCheck) else row


def _rows() -> Iterator[tuple[PluginInfo, PluginRegistry, Any]]:
    """Every plug-in with its registry and its source: an entry, or the object registered in this process."""
    from compt.registry import REGISTRIES

    for registry in REGISTRIES:
        kind = registry.group.rpartition(".")[2]
        for name in registry.declared():
            local, entries = registry.candidates(name)
            clash = len(entries) + (local is not None) > 1
            for entry in entries:
                write = entry.key if clash else name
                info = PluginInfo(kind, name, entry.package, entry.version, entry.target, write, clash)
                yield info, registry, entry
            if local is not None:
                write = "" if clash else name
                yield PluginInfo(kind, name, "", "", object_path(local), write, clash), registry, local
