"""Make tables of the terminal from columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    header: str
    cells: tuple[str, ...]
    is_text: bool = False
    """Text stands left, numbers right."""

    @classmethod
    def of(cls, header: str, cells: Iterable[str], *, is_text: bool = False) -> Column:
        """Return a column of these cells."""
        return cls(header, tuple(cells), is_text)

    @property
    def width(self) -> int:
        """Characters that it takes, with the space beside it."""
        return max(map(len, (self.header, *self.cells))) + 2


def table_of(columns: Sequence[Column], section_ends: Sequence[int]) -> Table:
    """Return a rich table with a rule after each of some rows, counted from 1."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column.header, justify="left" if column.is_text else "right", no_wrap=True)
    for index, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*row, end_section=index + 1 in section_ends)
    return table
