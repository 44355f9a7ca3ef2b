"""``keyauth usage``: what was used, by day, month, key or unit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fastapi_keyauth.cli.output import Json, print_json, say
from fastapi_keyauth.cli.parameters import parse_key_id
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.cli.tables import print_table
from fastapi_keyauth.domain.usage import By

if TYPE_CHECKING:
    from fastapi_keyauth.domain.usage import UsageItem
    from fastapi_keyauth.keyauth import KeyAuth


Format = Literal["table", "json", "csv"]


def usage(
    from_: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day (UTC). Default: the first of this month.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Day after the last one. Default: tomorrow.")
    ] = None,
    by: Annotated[By, typer.Option(help="Grouping of the lines.")] = "day",
    owner: Annotated[str | None, typer.Option(help="Only keys of this owner.")] = None,
    key: Annotated[str | None, typer.Option(metavar="ID", parser=parse_key_id, help="Only this key.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Format of the output.")] = "table",
    as_json: Json = False,
) -> None:
    """Report what was used, by day, month, key or unit. Lines that are not closed may still change."""
    if as_json:
        form = "json"

    place = ""

    async def read(auth: KeyAuth) -> tuple[list[str], list[UsageItem]]:
        from fastapi_keyauth.settings.urls import masked_url

        nonlocal place
        place = masked_url(auth.settings.database_url)
        report = await auth.usage.report(from_, to, by, owner, key)
        range_ = auth.usage.find_range(from_, to)
        return await auth.usage.find_units(range_, None if owner is None else [owner], key), report.items

    units, items = run_command(read, as_json=form == "json")
    if form == "json":
        from fastapi_keyauth.domain.usage_formats import item_as_json

        print_json({"items": [item_as_json(item, by) for item in items]})
    elif form == "csv":
        from fastapi_keyauth.domain.usage_formats import UsageCsv

        lines = UsageCsv(by, units)
        _write_exactly("".join([lines.header(), *map(lines.row, items)]))
    elif items:
        _print(by, units, items)
    else:
        # An owner or a folder that was mistyped looks the same.
        say(f"No matching usage in {place}.")


def _print(by: By, units: list[str], items: list[UsageItem]) -> None:
    columns = ["units"] if by == "unit" else units
    rows = []
    for item in items:
        numbers = [sum(item.units.values())] if by == "unit" else [item.units.get(unit, 0) for unit in units]
        name = item.day or item.month or item.key_id or item.unit
        rows.append((str(name), *map(str, numbers), str(item.refused), "closed" if item.closed else "open"))
    print_table((by, *columns, "refused", "state"), rows, right=(*columns, "refused"))


def _write_exactly(text: str) -> None:
    """Write lines with the line ends that CSV requires, even if the console would translate them."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
