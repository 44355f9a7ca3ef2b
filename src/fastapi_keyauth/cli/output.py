"""What commands print: results on stdout, everything said about them on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from fastapi_keyauth.domain.text import is_printable_text

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_WIDTH_IN_A_PIPE = 200
_COLOURS = {"active": "green", "disabled": "yellow", "expired": "yellow", "revoked": "red"}


def console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now. Names are printed as they are: brackets in them mean nothing."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_IN_A_PIPE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_line(text: str) -> None:
    """A line that may be taken into a shell variable: never wrapped, never coloured."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A sentence for the person at the terminal; no part of the result."""
    console(stderr=True).print(text, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> None:
    """Rows under headings. Nothing is cut off: what is too long for the terminal goes on below."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        # The first is what other commands want to be given.
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, no_wrap=number == 0, overflow="fold", justify=justify, min_width=len(column))
    for row in rows:
        table.add_row(*map(_visible, row))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, str | Text]]) -> None:
    """A thing with its properties, one a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(_visible(name), _visible(value))
    console().print(table)


def _visible(cell: str | Text) -> str | Text:
    """What owners write into their notes must not steer the terminal of whoever looks: escapes in place of controls."""
    if isinstance(cell, Text) or is_printable_text(cell):
        return cell
    return "".join(c if is_printable_text(c) else c.encode("unicode_escape").decode() for c in cell)


def moment(at: datetime | None) -> str:
    """A time as people read it, in UTC."""
    return "never" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def day(at: datetime | None) -> str:
    """Its day alone, for tables with many columns."""
    return "never" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d")


def status(name: str) -> Text:
    """A key's status, in a colour where there are any."""
    return Text(name, style=_COLOURS.get(name, ""))
