"""Fake packages with plug-ins, as pip would leave them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

GROWER = """
from compt.interfaces import Grower

class Fake(Grower):
    def check(self, source, target): pass
    def grow(self, source, target, **others): pass
"""


def write_package(
    folder: Path,
    name: str,
    entries: Mapping[str, str],
    modules: Mapping[str, str],
    *,
    version="1.2",
    metadata="",
    group="compt.growers",
    stem="",
) -> None:
    """Write a distribution as pip would leave it: dist-info and modules."""
    info = folder / f"{stem or name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{textwrap.dedent(metadata)}"
    )
    (info / "entry_points.txt").write_text(
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
    )
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
