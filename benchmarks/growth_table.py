"""Measure what growers keep of every architecture that has a layout, and put it into a table.

``python benchmarks/growth_table.py --json growth.json --write docs/architectures.md`` grows small
models with random weights, in float64, to whole multiples of every width, to another width, and
deeper. It prints the tables and puts them into a document, between ``<!-- exact -->``,
``<!-- growth -->`` and ``<!-- end -->``. ``--read growth.json`` does so with what was measured
before.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from measuring.layout_lines import lines_of
from measuring.tables import put_between

from compt.errors import ComptError, ConfigError, GrowthError, LayoutError, did_you_mean
from compt.growth.axes import find_layout
from compt.growth.run import grow
from compt.interfaces import Growth
from compt.report.format import plain_console
from compt.writing import atomic

ROOT = Path(__file__).parents[1]
FAMILIES = ("tests.layouts.families:FAMILIES", "tests.layouts.language_models:CASES")
"""Where architectures are, each at four sizes."""
GROWERS: Mapping[str, Mapping[str, Any]] = {
    "lossless": dict(type="lossless"),
    "clone": dict(type="clone"),
    "stack": dict(type="stack", blocks="zero"),
    "aki": dict(type="aki"),
    "leading_block": dict(type="leading_block"),
}
HOPS = ("whole", "other", "deep")
"""A whole multiple of every width, another width, and more blocks."""

Row = dict[str, Any]
"""What was measured of one architecture, as JSON types."""


def architectures() -> dict[str, Any]:
    """Return every architecture by its name, with ``pair(hop)`` that builds source and target."""
    sys.path.insert(0, str(ROOT))
    found: dict[str, Any] = {}
    for place in FAMILIES:
        module, name = place.split(":")
        found |= getattr(importlib.import_module(module), name)
    return found


def measure(name: str, family: Any, growers: Sequence[str]) -> Row:
    """Grow one architecture in every way.

    Args:
        name: of the architecture.
        family: builds a source and a target for each hop.
        growers: names of those to try.
    """
    hops: dict[str, dict[str, Any]] = {grower: {} for grower in growers}
    row: Row = {"architecture": name, "growers": hops}
    for hop in HOPS:
        source, target = family.pair(hop)
        for grower in growers:
            hops[grower][hop] = _measure_hop(source, deepcopy(target), grower)
    layout = type(find_layout(source))
    lines = lines_of(layout)
    return row | {"layout": _place(layout), "own_lines": lines.own, "shared_lines": lines.shared}


def _place(layout: type) -> str:
    """Return the file of a layout, from the root of the repository on, and its class."""
    path = Path(inspect.getfile(layout))
    path = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)
    return f"{path}:{layout.__name__}"


def _measure_hop(source: Any, target: Any, grower: str) -> dict[str, Any]:
    """Grow once, and return what came of it or why it cannot be."""
    began = time.process_time()
    try:
        growth: Growth = grow(source, target, GROWERS[grower])
    except (GrowthError, LayoutError) as error:
        return {"refused": str(error).splitlines()[0]}
    return {
        "exact": growth.function_preserving,
        "error": growth.error,
        "reason": growth.reason,
        "counts": growth.counts,
        "seconds": time.process_time() - began,
    }


# Tables


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the tables by the names of their places."""
    growers = list(dict.fromkeys(name for row in rows for name in row["growers"]))
    return {"exact": _exact_table(rows, growers), "growth": _growth_table(rows)}


def _exact_table(rows: Sequence[Row], growers: Sequence[str]) -> str:
    """Return what each grower keeps of each architecture, by hop."""
    cells = [
        [
            row["architecture"],
            *(" · ".join(map(_error, row["growers"][name].values())) for name in growers),
        ]
        for row in rows
    ]
    return _markdown(["architecture", *(f"`{name}`" for name in growers)], cells)


def _growth_table(rows: Sequence[Row]) -> str:
    """Return what 'lossless' does to each architecture, its layout and what it costs."""
    heads = ["architecture", "layout", "lines, own + shared"]
    heads += ["whole: copied / expanded / new", "deep", "ms", "where not exact, why"]
    return _markdown(heads, [list(_growth_cells(row)) for row in rows])


def _growth_cells(row: Row) -> Iterator[str]:
    """Yield the cells of one architecture."""
    hops = row["growers"].get("lossless", {})
    path, name = row["layout"].split(":")
    yield row["architecture"]
    yield f"[{name}](../{path})"
    yield f"{row['own_lines']} + {row['shared_lines']}"
    for hop in ("whole", "deep"):
        yield _counts(hops.get(hop, {}))
    yield f"{1000 * sum(hop.get('seconds', 0.0) for hop in hops.values()):.0f}"
    reasons = [_first(hop.get("refused") or hop.get("reason", "")) for hop in hops.values()]
    yield "; ".join(dict.fromkeys(filter(None, reasons)))


def _error(hop: Mapping[str, Any]) -> str:
    """Return the measured error of a hop, bold where the function is kept, '-' where refused."""
    if "refused" in hop:
        return "-"
    error = "?" if hop["error"] is None else f"{hop['error']:.0e}".replace("e-0", "e-")
    if hop["error"] is not None and (hop["error"] == 0 or hop["error"] >= 1e-3):
        error = f"{hop['error']:.1g}"
    return f"**{error}**" if hop["exact"] else error


def _counts(hop: Mapping[str, Any]) -> str:
    """Return how many tensors were copied, expanded and made anew."""
    counts = hop.get("counts")
    if counts is None:
        return "-"
    return " / ".join(str(counts[status]) for status in ("copied", "expanded", "initialised"))


def _first(reason: str) -> str:
    """Return the first of several reasons, without what was measured before it."""
    return reason.split("; ")[0].replace("|", "\\|").strip()


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# The command


def chosen(known: Sequence[str], wanted: Sequence[str], what: str) -> list[str]:
    """Return the names of those that are wanted, all where none is named.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in wanted:
        if name not in known:
            raise ConfigError(f"There is no {what} '{name}'.{did_you_mean(name, known)}")
    return [name for name in known if name in wanted or not wanted]


def main() -> int:
    """Measure or read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=[], help="names; by default all")
    parser.add_argument("--growers", nargs="+", default=[], help=f"of {', '.join(GROWERS)}")
    parser.add_argument("--json", type=Path, help="file for what is measured")
    parser.add_argument("--read", type=Path, help="file of --json to use instead of measuring")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="to put the tables into")
    arguments = parser.parse_args()
    console = plain_console()
    try:
        if arguments.read:
            rows = json.loads(arguments.read.read_text())
        else:
            families = architectures()
            names = chosen([*families], arguments.architectures, "architecture")
            growers = chosen([*GROWERS], arguments.growers, "grower")
            rows = []
            for name in names:
                rows.append(measure(name, families[name], growers))
                print(f"{len(rows)} of {len(names)}: {name}", file=sys.stderr, flush=True)
        if arguments.json:
            with atomic(arguments.json) as file:
                file.write_text(json.dumps(rows, indent=1) + "\n")
        content = tables(rows)
        if arguments.write:
            for name, text in content.items():
                put_between(arguments.write, name, text)
    except (ComptError, OSError, ValueError) as error:
        print(f"growth_table: {error}", file=sys.stderr)
        return 2
    console.print("\n\n".join(content.values()), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
