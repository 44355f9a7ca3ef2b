"""Tables on stdout. Rich's own take a second for every 1,500 rows, and an audit may have many thousands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fastapi_keyauth.cli.output import console, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_GAP = "  "


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> None:
    """Print rows under headings. Nothing is cut off: what is too long for the terminal is wrapped.

    Args:
        columns: The headings. The first column, which other commands take as an argument, is never wrapped.
        rows: A cell for each column.
        right: Columns that are aligned to the right.
    """
    from rich.text import Text

    out = console()
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = _find_widths(columns, cells, out.width)
    is_right = [column in right for column in columns]
    heading: list[str | Text] = [Text(column, style="bold") for column in columns]
    for row in (heading, *cells):
        for line in _lines_of(row, widths, out):
            _print_line(out, [_padded(*each) for each in zip(line, widths, is_right, strict=True)])


def _length(cell: str | Text) -> int:
    """Return the number of terminal cells: characters of East Asian scripts take two."""
    if isinstance(cell, str):
        if cell.isascii():
            return len(cell)
        from rich.cells import cell_len

        return cell_len(cell)
    return cell.cell_len


def _find_widths(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], available: int) -> list[int]:
    """Return the width of each column. The widest ones are narrowed until all fit, but not below their headings."""
    least = [_length(column) for column in columns]
    widths = list(least)
    for row in rows:
        widths = [max(width, _length(cell)) for width, cell in zip(widths, row, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > available:
        wide = [number for number in range(1, len(widths)) if widths[number] > least[number]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _lines_of(row: Sequence[str | Text], widths: Sequence[int], out: Console) -> Iterable[Sequence[str | Text]]:
    """Yield the lines of a row: more than one if a cell is longer than its column is wide."""
    if all(_length(cell) <= width for cell, width in zip(row, widths, strict=True)):
        yield row
        return
    from rich.text import Text

    texts = [Text(cell) if isinstance(cell, str) else cell for cell in row]
    wrapped = [text.wrap(out, width, overflow="fold") for text, width in zip(texts, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        yield [lines[number] if number < len(lines) else "" for lines in wrapped]


def _padded(cell: str | Text, width: int, is_right: bool) -> str | Text:
    missing = " " * (width - _length(cell))
    if not missing:
        return cell
    if isinstance(cell, str):
        return missing + cell if is_right else cell + missing
    padded = cell.copy()
    if is_right:
        padded.pad_left(len(missing))
    else:
        padded.pad_right(len(missing))
    return padded


def _print_line(out: Console, cells: Sequence[str | Text]) -> None:
    if all(isinstance(cell, str) for cell in cells):
        out.file.write(_GAP.join(map(str, cells)).rstrip() + "\n")
        return
    from rich.text import Text

    line = Text(_GAP).join([Text(cell) if isinstance(cell, str) else cell for cell in cells])
    line.rstrip()
    out.print(line, soft_wrap=True)
