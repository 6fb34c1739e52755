"""Tables that fit the screen: columns of text wrap, figures are never cut.

A column of figures is one whose cells stand to the right. Where the columns do not fit side by
side, the table is printed in blocks, one below the other, each beginning with the first column.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_UNBOUNDED = 1_000_000
"""A width in characters that no table reaches, to measure one with."""

_READABLE = 24
"""The least width, in characters, that a column of text is given unless its words are shorter; a
longer word, such as a path, is continued on the next line."""


def print_table(table: Table, out: Console) -> None:
    """Print a table so that every figure can be read, however narrow the screen is."""
    for number, columns in enumerate(_blocks(table, out)):
        block = _part(table, columns)
        _set_widths(block, out)
        if number:
            block.title = None
        out.print(block)


def _blocks(table: Table, out: Console) -> list[list[Column]]:
    first, *others = table.columns
    blocks, block = [], [first]
    for column in others:
        wider = _part(table, [*block, column])
        if len(block) > 1 and _frame(wider, out) + sum(map(_least, wider.columns)) > out.width:
            blocks.append(block)
            block = [first]
        block.append(column)
    return [*blocks, block]


def _part(table: Table, columns: Sequence[Column]) -> Table:
    """The same rows with some of the columns."""
    part = Table(
        title=table.title,
        title_justify=table.title_justify,
        title_style=table.title_style,
        box=table.box,
        padding=table.padding,
    )
    for column in columns:
        part.add_column(
            column.header,
            justify=column.justify,
            no_wrap=column.justify == "right",
            overflow="fold",
        )
    for row, *cells in zip(table.rows, *(column.cells for column in columns), strict=True):
        part.add_row(*cells, end_section=row.end_section)
    return part


def _set_widths(table: Table, out: Console) -> None:
    """Give each column of a table that is too wide its least width, and a share of the rest.

    The rest goes to the columns that lack least, so that only the longest texts wrap. A table that
    has no room even for that is left as it is: its texts are folded.
    """
    widths = [_least(column) for column in table.columns]
    natural = [_natural(column) for column in table.columns]
    room = out.width - _frame(table, out)
    if sum(natural) <= room or sum(widths) > room:
        return
    spare = room - sum(widths)
    for i in sorted(range(len(widths)), key=lambda i: natural[i] - widths[i]):
        given = min(spare, natural[i] - widths[i])
        widths[i] += given
        spare -= given
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width


def _frame(table: Table, out: Console) -> int:
    """The characters of a line that are no cell's: edges and padding."""
    options = out.options.update(width=_UNBOUNDED)
    return Measurement.get(out, options, table).maximum - sum(map(_natural, table.columns))


def _least(column: Column) -> int:
    """All of a figure; of a text, its longest word up to a readable width."""
    if column.justify == "right":
        return _natural(column)
    words = (word for cell in _texts(column) for word in cell.split())
    return max(1, min(_READABLE, max(map(cell_len, words), default=1)))


def _natural(column: Column) -> int:
    """The longest line."""
    return max((cell_len(line) for cell in _texts(column) for line in cell.splitlines()), default=0)


def _texts(column: Column) -> list[str]:
    return [_plain(cell) for cell in (column.header, *column.cells)]


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
