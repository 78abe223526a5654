"""Lists every plug-in by registry, as declared, and checks whether it can be loaded.

Of compt it imports the registries, which import no library: ``compt list`` is a matter of moments.
"""

from __future__ import annotations

import contextlib
import io
import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from compt.errors import PluginError, visible
from compt.registry.entry_points import Damaged, Entry, damaged, object_path
from compt.registry.registry import REGISTRIES, PluginRegistry

if TYPE_CHECKING:
    from rich.table import Table

ENTRY_POINTS = "entry_points.txt"
COLUMNS = ("registry", "name", "package", "version", "target")


@dataclass(frozen=True)
class PluginInfo:
    """One plug-in as declared, where ``type`` is what a config writes for it.

    ``package`` and ``version`` are empty for a class registered in this process; ``target`` is then
    the path of the class. ``clash`` tells that something else has the same name; ``type`` is then
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
    """List the plug-ins there are, by registry, name and package, without importing them."""
    return [info for _, info, _ in _rows()]


def check() -> list[PluginCheck]:
    """Load every plug-in, one at a time, and say what is wrong with each.

    What they print is dropped. Packages whose entry points cannot be read come first: torch
    stumbles over such a list, too.
    """
    checks = [_damage(package) for package in damaged()]
    for registry, info, plugin in list(_rows()):  # before loading registers more
        error = ""
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(sys.stderr):
            try:
                if isinstance(plugin, Entry):
                    registry.load(plugin)
                else:
                    registry.check(plugin, info.name)
            except PluginError as fault:
                error = fault.one_line
        checks.append(PluginCheck(info, error))
    return checks


def _damage(package: Damaged) -> PluginCheck:
    return PluginCheck(
        PluginInfo("(any)", "(not known)", package.package, package.version, ENTRY_POINTS, ""),
        f"Its entry points cannot be read ({package.error}). Reinstall or remove the package.",
    )


def as_dicts(rows: Sequence[PluginInfo | PluginCheck]) -> list[dict[str, Any]]:
    """Return rows for JSON, where those of a check have ``ok`` and ``error`` besides."""
    dicts = []
    for row in rows:
        checked = {"ok": row.ok, "error": row.error} if isinstance(row, PluginCheck) else {}
        dicts.append({**asdict(_info(row)), **checked})
    return dicts


def as_table(rows: Sequence[PluginInfo | PluginCheck]) -> Table:
    """Lay out one row a plug-in, with a line between registries."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    checked = any(isinstance(row, PluginCheck) for row in rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in (*COLUMNS, *(["check"] if checked else [])):
        table.add_column(column, overflow="fold")
    section = ""
    for row in rows:
        info = _info(row)
        if section not in ("", info.registry):
            table.add_section()
        section = info.registry
        advice = f"write {info.type}" if info.type else "register it under another name"
        name = f"{info.name} (clash: {advice})" if info.clash else info.name
        cells = [info.registry, name, info.package or "(this process)", info.version, info.target]
        if isinstance(row, PluginCheck):
            cells.append(row.error or "ok")
        table.add_row(*(Text(visible(cell)) for cell in cells))  # Text: brackets are no markup
    return table


def list_command(json: bool) -> int:
    """Print what ``listing`` finds, and return the exit code, 0."""
    _print(listing(), json)
    return 0


def check_command(json: bool) -> int:
    """Print what ``check`` finds, and return the exit code, 2 where a plug-in failed."""
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


def _rows() -> Iterator[tuple[PluginRegistry, PluginInfo, Any]]:
    """Yield the entry point of every plug-in, or the object registered in this process."""
    for registry in REGISTRIES:
        kind = registry.group.rpartition(".")[2]
        for name in registry.known.declared():
            local, entries = registry.known.candidates(name)
            clash = len(entries) + (local is not None) > 1
            for entry in entries:
                origin = (entry.package, entry.version, entry.target)
                write = entry.key if clash else name
                yield registry, PluginInfo(kind, name, *origin, write, clash), entry
            if local is not None:
                origin = ("", "", object_path(local))
                write = "" if clash else name
                yield registry, PluginInfo(kind, name, *origin, write, clash), local
