"""Write results as tables of documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.errors import ConfigError
from compt.writing import atomic
from measuring.overwritten import (
    ANEW,
    BEFORE_DECAY,
    PLATEAUS,
    Point,
    deviation,
    fitted,
    foretold,
    miss,
    points,
)
from measuring.rule import SEEDS
from measuring.show import (
    Row,
    mean,
    padded_text,
    recipe_text,
    recipes,
    signed,
    text_of,
    times,
    why_closed,
)

RATIO_COLUMNS = (
    "seeds",
    "as good as alone",
    "and in order",
    "in seconds",
    "at equal quality",
    "skip bound",
    "stop and pad",
)
CONTROL_COLUMNS = (
    "as published",
    "equal compute",
    "equal samples",
    "only the largest",
    "downward, at most",
)

HOP_COLUMNS = ("family", "hop", "iterations", "source is worth", "stage", "member is worth", "c")
FORETOLD_COLUMNS = (
    "family",
    "length",
    "worths missed by",
    "ratio foretold",
    "at the budgets found",
    "error",
    "at equal quality",
)
KINDS = {
    ANEW: ("Stages that begin anew", "s + b (1 - c s)"),
    BEFORE_DECAY: ("From the plateau before a decay", "s + b (1 - c s)"),
    PLATEAUS: ("From plateau to plateau", "s + b (1 - c sqrt(s))"),
}
"""What hops of a kind are called, and their law."""


def saving_table(rows: Sequence[Row]) -> str:
    """Return what each chain saves, and what stopping and padding scores, a table for each unit.

    Rows whose length has the same unit, such as tokens a parameter, are of one paradigm.
    """
    return _by_unit(rows, RATIO_COLUMNS, _ratio_cells)


def controls_table(rows: Sequence[Row]) -> str:
    """Return what the compute of each chain brings in other ways, a table for each unit."""
    return _by_unit(rows, CONTROL_COLUMNS, _control_cells)


def _by_unit(
    rows: Sequence[Row], columns: Sequence[str], cells: Callable[[Row], Sequence[str]]
) -> str:
    parts = []
    for unit in dict.fromkeys(row["unit"] for row in rows):
        lines = [
            (panel_name(row), f"{row['length']:.3g}", *cells(row))
            for row in rows
            if row["unit"] == unit
        ]
        parts.append(_table(("family", unit, *columns), lines))
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cells) for cells in (header, *rows)]
    lines.insert(1, " | ".join(["---"] * len(header)))
    return "\n".join(f"| {line} |" for line in lines)


def _ratio_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row; a family that is none has no ratio of a chain."""
    if not row["gate"]["open"]:
        said = str(row["seeds"]), f"no family: {why_closed(row)}"
        return (*said, *[""] * (len(RATIO_COLUMNS) - 3), padded_text(row))
    return (
        str(row["seeds"]),
        _verdict(row, "as_good"),
        _verdict(row, "in_order"),
        times(row["ratio_seconds"]),
        times(row.get("equal_quality")),
        times(row["skip_bound"]),
        padded_text(row),
    )


def _control_cells(row: Row) -> tuple[str, ...]:
    """Return the controls of a row; a family that is none has what needs no chain."""
    downward = times(row["downward_bound"])
    if not row["gate"]["open"]:
        return (*[""] * (len(CONTROL_COLUMNS) - 1), downward)
    return (
        recipe_text(row, row["published"]) if row["published"] else "",
        signed(row["equal_compute"]["gain"]),
        signed(row["equal_samples"]["gain"]),
        times(row["only_the_largest"]),
        downward,
    )


def _verdict(row: Row, key: str) -> str:
    ratio = times(row["ratio"])
    if row["seeds"] < SEEDS:
        return f"undecided, at {ratio}"
    return f"**{ratio}**" if row[key] else f"missed, at {ratio}"


def panel_name(row: Row) -> str:
    """Return what a row's family is called, without its preset, and how many members it has."""
    return f"{str(row['name']).rpartition('-')[0]}, {len(row['members'])} members"


def overwritten_table(rows: Sequence[Row]) -> str:
    """Return the hops of all rows, what their stages have overwritten, and the laws' fit.

    Hops of every kind have a law of their own. Every row's hops are also foretold from the other
    rows' alone. Without hops it is empty.
    """
    by_row = [list(points(row)) for row in rows]
    every = [point for of_row in by_row for point in of_row]
    laws = _laws(every)
    parts = []
    for kind, (name, formula) in KINDS.items():
        of_kind = [point for point in every if point.kind == kind]
        if of_kind:
            caption = (
                f"{name}, {formula}: c = {laws[kind]:.2f}, {deviation(of_kind):.2f} its standard "
                "deviation over hops; the law misses what members are worth by "
                f"{miss(of_kind, laws):.3f} of the budget (root mean square)."
            )
            parts += [caption, _table(HOP_COLUMNS, list(_hops(rows, by_row, kind)))]
    foretold_rows = list(_foretold(rows, by_row))
    if foretold_rows:
        caption = (
            "What the laws of all other rows foretell of each, from the curves and means of its "
            "members alone:"
        )
        parts += [caption, _table(FORETOLD_COLUMNS, foretold_rows)]
    return "\n\n".join(parts)


def _laws(of: Sequence[Point]) -> dict[str, float]:
    """Return the ``c`` of every kind of hop that there is."""
    return {
        kind: fitted([point for point in of if point.kind == kind])
        for kind in {point.kind for point in of}
    }


def _hops(rows: Sequence[Row], by_row: Sequence[Sequence[Point]], kind: str) -> Iterator[list[str]]:
    """Yield the cells of every hop of a kind, with the least and the most over its stages."""
    for row, own in zip(rows, by_row, strict=True):
        for hop in dict.fromkeys(point.hop for point in own if point.kind == kind):
            stages = [point for point in own if point.hop == hop]
            yield [
                panel_name(row),
                " -> ".join(hop),
                str(row["iters"]),
                f"{stages[0].source:.2f}",
                _range(point.share for point in stages),
                _range(point.worth for point in stages),
                _range(point.fading for point in stages),
            ]


def _range(values: Iterable[float]) -> str:
    ends = sorted(values)
    return f"{ends[0]:.2f} to {ends[-1]:.2f}"


def _foretold(rows: Sequence[Row], by_row: Sequence[Sequence[Point]]) -> Iterator[list[str]]:
    """Yield what laws of the other rows foretell of each, if those have hops of all its kinds."""
    for row, own in zip(rows, by_row, strict=True):
        law = _laws([point for of_row in by_row if of_row is not own for point in of_row])
        if own and {point.kind for point in own} <= law.keys():
            ratio, found = foretold(row, law), row["ratio"]
            yield [
                panel_name(row),
                f"{row['length']:.3g} {row['unit']}",
                f"{miss(own, law):.3f}",
                times(ratio),
                times(found),
                f"{ratio / found - 1:+.0%}",
                times(row["equal_quality"]),
            ]


def elsewhere_table(rows: Sequence[Row]) -> str:
    """Return what members come to on held-out splits that do not judge, beside the one that does.

    Rows without other splits are left out; without any row it is empty.
    """
    known = [row for row in rows if row.get("elsewhere", {"alone": [{}]})["alone"][0]]
    chains = list(dict.fromkeys(name for row in known for name in recipes(row)))
    cells = [
        [
            panel_name(row),
            f"{row['length']:.3g} {row['unit']}",
            figure,
            *columns,
        ]
        for row in known
        for figure, columns in _by_figure(row, chains).items()
    ]
    header = ("family", "length", "figure", "alone", "chain beside alone")
    return _table((*header, *chains), cells) if cells else ""


def _by_figure(row: Row, chains: Sequence[str]) -> dict[str, list[str]]:
    """Return cells by figure, the judging one first: levels alone, and gains of every chain."""
    alone, own = row["elsewhere"]["alone"], row["metric"]
    levels = {own: [mean(member["alone"]) for member in row["members"]]}
    gains = {own: [[verdict["gain"] for verdict in row["verdicts"]]]}
    gains[own] += [[one["gain"] for one in recipes(row).get(name, ())] for name in chains]
    for figure in alone[0]:
        levels[figure] = [member[figure] for member in alone]
        by_chain = [row["elsewhere"]["chain"]]
        by_chain += [[one["elsewhere"] for one in recipes(row).get(name, ())] for name in chains]
        gains[figure] = [[member.get(figure) for member in members] for members in by_chain]
    return {
        figure: [
            ", ".join(f"{level:.3f}" for level in levels[figure]),
            *(", ".join(map(signed, of_chain)) for of_chain in gains[figure]),
        ]
        for figure in levels
    }


def study_table(result: Mapping[str, Any]) -> str:
    """Return the table of one length of a study, with taxes and, in brackets, gains over alone."""
    fractions = sorted({point["fraction"] for way in result["ways"] for point in way["points"]})
    caption = (
        f"`{' -> '.join(result['hop'])}`, {result['iters']} iterations alone "
        f"({result['length']:.3g} {result['unit']}), {result['metric']}, {result['seeds']} seeds. "
        f"The source is worth {_share(result['worth_of_source'])} of the budget."
    )
    header = ("way", *(f"{fraction:g} of the budget" for fraction in fractions), "FLOPs")
    rows = [_way_cells(way, fractions) for way in result["ways"]]
    return f"{caption}\n\n{_table(header, rows)}"


def _way_cells(way: Mapping[str, Any], fractions: Sequence[float]) -> list[str]:
    points = {point["fraction"]: point for point in way["points"]}
    costs = [point["flops"] / fraction for fraction, point in points.items()]
    cells = [_point(points[fraction]) if fraction in points else "" for fraction in fractions]
    return [text_of(way["way"]), *cells, times(sum(costs) / len(costs) if costs else None)]


def _point(point: Mapping[str, Any]) -> str:
    return f"{_share(point['tax'])} ± {_share(point['tax_error'])} ({signed(point['gain'])})"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"


def put_between(document: Path, name: str, content: str) -> None:
    """Put text between the markers ``<!-- NAME -->`` and ``<!-- end -->`` of a document.

    Raises:
        ConfigError: the document has no such markers.
    """
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
    text, count = re.subn(
        pattern,
        lambda match: f"{match[1]}\n{content}\n\n{match[2]}",
        document.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise ConfigError(
            f"'{document}' has no place for '{name}'.", do=f"Add <!-- {name} --> and <!-- end -->."
        )
    with atomic(document) as file:
        file.write_text(text)
