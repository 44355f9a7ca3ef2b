"""What commands print: results on stdout, everything said about them on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastapi_keyauth.domain.text import is_printable_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="JSON output, for programs.")]

_WIDTH_IN_A_PIPE = 200
_COLORS = {"active": "green", "disabled": "yellow", "expired": "yellow", "revoked": "red"}


def console(*, stderr: bool = False) -> Console:
    """Build a console on the current stream. Text is printed as it is: brackets have no meaning."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_IN_A_PIPE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_line(text: str) -> None:
    """Print a line for a shell variable: never wrapped, never colored."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Print a sentence for the person at the terminal on stderr. It is not part of the result."""
    console(stderr=True).print(text, soft_wrap=True)


def print_facts(facts: Iterable[tuple[str, str | Text]]) -> None:
    """Print an object's properties, one per line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(visible(name), visible(value))
    console().print(table)


def visible(cell: str | Text) -> str | Text:
    """Escape control characters: text that owners write must not control the terminal of whoever reads it."""
    if not isinstance(cell, str) or is_printable_text(cell):
        return cell
    return "".join(c if is_printable_text(c) else c.encode("unicode_escape").decode() for c in cell)


def moment(at: datetime | None) -> str:
    """Format a time for people, in UTC."""
    return "never" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def day(at: datetime | None) -> str:
    """Format the day of a time, for tables with many columns."""
    return "never" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d")


def status(name: str) -> Text:
    """Format a key's status, colored if the terminal has colors."""
    from rich.text import Text

    return Text(name, style=_COLORS.get(name, ""))
