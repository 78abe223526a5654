"""compt new-plugin: writes a package that installs, passes its contract tests, and is listed at
once.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from packaging.version import Version

from compt._version import __version__
from compt.api import API_VERSION
from compt.errors import ConfigError, WorkDirError
from compt.files import atomic
from compt.registry.entry_points import Names

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Kind:
    """One kind of plug-in: its entry-point group, what messages call it, and the key that names it
    in a config.
    """

    group: str
    noun: str
    usage: str


KINDS: Mapping[str, Kind] = {
    "grower": Kind("compt.growers", "grower", 'grower = dict(type="$plugin")'),
    "transfer": Kind(
        "compt.transfers", "transferer", 'transfer = dict(type="$plugin", weight=1.0)'
    ),
    "paradigm": Kind("compt.paradigms", "paradigm", 'paradigm = dict(type="$plugin")'),
    "layout": Kind(
        "compt.layouts", "layout", "# no key: the layout is found by the class that it describes"
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
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise WorkDirError(
            "The folder exists and is not empty.", where=str(folder), do="Choose another with -o."
        )
    for root in ("any", *(["net"] if kind in ("layout", "paradigm") else []), kind):
        for file in sorted((TEMPLATES / root).rglob("*.txt")):
            _write(file, folder / _path(file.relative_to(TEMPLATES / root), names), names)
    return folder


def next_steps(folder: Path, kind: str) -> str:
    """What to do with a new package."""
    return (
        f"{folder}: a package with one {KINDS[kind].noun}. Next:\n"
        f"  cd {folder}\n"
        '  pip install -e ".[test]"\n'
        "  python -m pytest\n"
        "  compt list"
    )


def _names(name: str, kind: str) -> dict[str, str]:
    package = re.sub(r"[-_.]+", "-", name.strip()).lower()
    module = package.replace("-", "_")
    plugin = module.removeprefix("compt_")
    if (
        not re.fullmatch(r"[a-z][a-z0-9_]*", plugin)
        or keyword.iskeyword(plugin)
        or plugin in ("compt", "test")
    ):
        raise ConfigError(
            f"'{name}' cannot be the name of a plug-in package.",
            do="Letters, digits and hyphens, beginning with a letter: compt-mean-fill.",
        )
    camel = "".join(part.capitalize() for part in plugin.split("_"))
    taken = Names(KINDS[kind].group).entries.get(plugin)
    if taken and kind != "layout":
        raise ConfigError(
            f"There is a {KINDS[kind].noun} '{plugin}' already, of {taken[0].origin}.",
            do="Choose another name.",
        )
    major, minor = Version(__version__).release[:2]
    names = {
        "package": package,
        "module": module,
        "plugin": plugin,
        "camel": camel,
        "api": API_VERSION,
        "compt": f"compt>={major}.{minor},<{major}.{minor + 1}",
        "noun": KINDS[kind].noun,
        "entries": _entries(kind, module, plugin, camel),
    }
    return {**names, "usage": Template(KINDS[kind].usage).substitute(names)}


def _entries(kind: str, module: str, plugin: str, camel: str) -> str:
    """The entry points of the package, as TOML; the models of a paradigm have a layout of their
    own.
    """
    layout = (
        f'[project.entry-points."compt.layouts"]\n"{module}.net.Net" = "{module}.layout:NetLayout"'
    )
    if kind == "layout":
        return layout
    own = f'[project.entry-points."{KINDS[kind].group}"]\n{plugin} = "{module}:{camel}"'
    return f"{own}\n\n{layout}" if kind == "paradigm" else own


def _path(template: Path, names: Mapping[str, str]) -> Path:
    """Where a template is written: without ``.txt``, the package's own names in place of 'module'
    and 'plugin'.
    """
    parts = [
        names["module"] if part == "module" else part for part in template.with_suffix("").parts
    ]
    return Path(*parts[:-1], parts[-1].replace("plugin", names["plugin"]))


def _write(template: Path, file: Path, names: Mapping[str, str]) -> None:
    text = Template(template.read_text(encoding="utf-8")).substitute(names)
    try:
        with atomic(file) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkDirError(
            f"The file cannot be written: {error.strerror or error}.",
            where=str(file),
            do="Choose a folder with -o.",
        ) from error
