"""Aligned columns, as wide as their widest cell: nothing is ever cut. Every cell is made safe here."""

from collections.abc import Sequence
from dataclasses import dataclass

from watchbill.cli.output.terminal import Terminal, padded, safe, width

_GAP = "   "


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    colour: str | None = None


Row = Sequence[Cell | str]


def lines(headers: Sequence[str] | None, rows: Sequence[Row], terminal: Terminal) -> list[str]:
    """One line a row; `headers` None leaves their line out."""
    cells = [[_cell(one) for one in row] for row in rows]
    if headers is not None:
        cells.insert(0, [Cell(header, "bold") for header in headers])
    widths = [max(width(cell.text) for cell in column) for column in zip(*cells, strict=True)]
    return [_line(row, widths, terminal) for row in cells]


def _cell(one: Cell | str) -> Cell:
    found = one if isinstance(one, Cell) else Cell(one)
    return Cell(safe(found.text) or "-", found.colour)


def _line(row: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    shown = []
    for position, (cell, cells_wide) in enumerate(zip(row, widths, strict=True)):
        is_last = position == len(row) - 1
        padding = "" if is_last else padded(cell.text, cells_wide)[len(cell.text) :] + _GAP
        shown.append(terminal.coloured(cell.text, cell.colour) + padding)
    return "".join(shown)
