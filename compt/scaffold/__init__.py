"""Writes a package with one plug-in that installs, passes its contract tests, and is listed.

May import: registry, files, errors and below.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from compt._version import __version__
from compt.api import API_VERSION
from compt.errors import ConfigError
from compt.registry import (
    DATA,
    GROWERS,
    LAYOUTS,
    PARADIGMS,
    SUITES,
    TRACKERS,
    TRANSFERERS,
    PluginRegistry,
)
from compt.writing import atomic_folder, check_output

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Kind:
    """One kind of plug-in, and the key that names it in a config."""

    registry: PluginRegistry
    usage: str
    roots: tuple[str, ...] = ()
    """Folders of templates beside those of every package and its own."""
    layout: bool = False
    """Whether the package has a layout, of the class in its module ``net``."""
    entry: str = "$plugin"
    """What the plug-in is registered as."""

    @property
    def noun(self) -> str:
        """What messages call such a plug-in."""
        return self.registry.noun


KINDS: Mapping[str, Kind] = {
    "grower": Kind(GROWERS, 'grower = dict(type="$plugin")'),
    "transfer": Kind(TRANSFERERS, 'transfer = dict(type="$plugin", weight=1.0)'),
    "paradigm": Kind(PARADIGMS, 'paradigm = dict(type="$plugin")', roots=("net",), layout=True),
    "layout": Kind(
        LAYOUTS,
        "# no key: the layout is found by the class that it describes",
        roots=("net",),
        layout=True,
    ),
    "data": Kind(DATA, 'paradigm = dict(type="clip", data=dict(type="$plugin"))'),
    "suite": Kind(SUITES, "# no key: compt eval WORK_DIR --suite $plugin"),
    "tracker": Kind(
        TRACKERS,
        'visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), '
        'dict(type="$entry")])',
        entry="${camel}VisBackend",
    ),
}


def new_plugin(name: str, kind: str, folder: Path | None = None) -> Path:
    """Write a package with one plug-in, and return its folder.

    Args:
        name: of the package; the plug-in is called the same, without a leading ``compt-``.
        kind: one of ``KINDS``.
        folder: where to write, new or empty; by default the package's name, here.

    Raises:
        ConfigError: the name cannot be a package's, or an installed plug-in has it.
        WorkDirError: the folder is not empty, or cannot be written.
    """
    names = _names(name, kind)
    folder = folder or Path(names["package"])
    check_output(folder)
    with atomic_folder(folder) as unfinished:
        for root in ("any", *KINDS[kind].roots, kind):
            for file in sorted((TEMPLATES / root).rglob("*.txt")):
                _write(file, unfinished / _path(file.relative_to(TEMPLATES / root), names), names)
    return folder


def next_steps(folder: Path, kind: str) -> str:
    """Say what to do with a new package."""
    return (
        f"{folder}: a package with one {KINDS[kind].noun}. Next:\n"
        f"  cd {folder}\n"
        '  pip install -e ".[test]"\n'
        "  python -m pytest\n"
        "  compt list"
    )


def _names(name: str, kind: str) -> dict[str, str]:
    """Return what templates hold a place for, by placeholder."""
    from packaging.version import Version  # the command line imports this module, but no library

    package = re.sub(r"[-_.]+", "-", name.strip()).lower()
    module = package.replace("-", "_")
    plugin = module.removeprefix("compt_")
    _check_name(name, plugin)
    chosen = KINDS[kind]
    camel = "".join(word.capitalize() for word in plugin.split("_"))
    entry = Template(chosen.entry).substitute(plugin=plugin, camel=camel)
    entries = chosen.registry.known.entries.get(entry)
    if entries:
        raise ConfigError(
            f"There is a {chosen.noun} '{entry}' already, of {entries[0].origin}.",
            do="Choose another name.",
        )
    major, minor = Version(__version__).release[:2]
    names = {
        "package": package,
        "module": module,
        "plugin": plugin,
        "camel": camel,
        "entry": entry,
        "api": API_VERSION,
        "compt": f"compt>={major}.{minor},<{major}.{minor + 1}",
        "noun": chosen.noun,
        "entries": _entries(chosen, f'{entry} = "{module}:{camel}"', module),
    }
    return {**names, "usage": Template(chosen.usage).substitute(names)}


def _check_name(name: str, plugin: str) -> None:
    reserved = keyword.iskeyword(plugin) or plugin in ("compt", "test")
    if reserved or not re.fullmatch(r"[a-z][a-z0-9_]*", plugin):
        raise ConfigError(
            f"'{name}' cannot be the name of a plug-in package.",
            do="Letters, digits and hyphens, beginning with a letter: compt-mean-fill.",
        )


def _entries(kind: Kind, own: str, module: str) -> str:
    """Write the package's entry points as TOML."""
    groups = {}
    if kind.registry is not LAYOUTS:
        groups[kind.registry.group] = own
    if kind.layout:
        groups[LAYOUTS.group] = f'"{module}.net.Net" = "{module}.layout:NetLayout"'
    tables = (f'[project.entry-points."{group}"]\n{line}' for group, line in groups.items())
    return "\n\n".join(tables)


def _path(template: Path, names: Mapping[str, str]) -> Path:
    """Return where a template is written, under the package's own names."""
    *folders, name = template.with_suffix("").parts
    own = [names["module"] if folder == "module" else folder for folder in folders]
    return Path(*own, name.replace("plugin", names["plugin"]))


def _write(template: Path, file: Path, names: Mapping[str, str]) -> None:
    text = Template(template.read_text(encoding="utf-8")).substitute(names)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
