"""compt list and compt check: every plug-in by registry, as declared, and whether it can be
loaded.
"""

from __future__ import annotations

import contextlib
import io
import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from compt.errors import PluginError
from compt.registry.entry_points import Entry, Names, damaged, object_path

if TYPE_CHECKING:
    from rich.table import Table

GROUPS = ("compt.growers", "compt.transfers", "compt.paradigms", "compt.layouts")
"""The entry-point groups in the order of the list."""


@dataclass(frozen=True)
class PluginInfo:
    """One plug-in as declared; ``type`` is what a config writes for it.

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
    """Say which plug-ins there are, by registry, name and package; imports none of them."""
    return [info for info, _ in _rows()]


def check() -> list[PluginCheck]:
    """Load every plug-in, one at a time, and say what is wrong with each; what they print is
    dropped.

    Packages whose entry points cannot be read come first: torch stumbles over such a list, too.
    """
    checks = [
        PluginCheck(
            PluginInfo(
                "(any)", "(not known)", package.package, package.version, "entry_points.txt", ""
            ),
            f"Its entry points cannot be read ({package.error}). Reinstall or remove the package.",
        )
        for package in damaged()
    ]
    from compt.registry import REGISTRIES

    registries = {registry.group: registry for registry in REGISTRIES}
    for info, source in list(_rows()):  # before loading registers more
        registry, error = registries[f"compt.{info.registry}"], ""
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(sys.stderr):
            try:
                if isinstance(source, Entry):
                    registry.load(source)
                else:
                    registry.check(source, info.name)
            except PluginError as fault:
                error = fault.one_line
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
    for column in (
        "registry",
        "name",
        "package",
        "version",
        "target",
        *(["check"] if checked else []),
    ):
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


def _rows() -> Iterator[tuple[PluginInfo, Any]]:
    """Every plug-in with its source: an entry, or the object registered in this process."""
    for group in GROUPS:
        names, kind = _names(group), group.rpartition(".")[2]
        for name in names.declared():
            local, entries = names.candidates(name)
            clash = len(entries) + (local is not None) > 1
            for entry in entries:
                write = entry.key if clash else name
                yield (
                    PluginInfo(
                        kind, name, entry.package, entry.version, entry.target, write, clash
                    ),
                    entry,
                )
            if local is not None:
                write = "" if clash else name
                yield PluginInfo(kind, name, "", "", object_path(local), write, clash), local


def _names(group: str) -> Names:
    """The names of a group, with those registered in this process if there can be any: mmengine is
    slow to import.
    """
    registries = getattr(sys.modules.get("compt.registry"), "REGISTRIES", ())
    return next(
        (registry.known for registry in registries if registry.group == group), Names(group)
    )
