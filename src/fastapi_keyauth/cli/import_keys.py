"""``keyauth keys import``: keys of another system, from a file."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from fastapi_keyauth.cli.output import Json, print_json, say
from fastapi_keyauth.cli.progress import Tracker, tracking
from fastapi_keyauth.cli.runner import Exit, run_command
from fastapi_keyauth.errors import ImportRefused

if TYPE_CHECKING:
    from fastapi_keyauth.keyauth import KeyAuth
    from fastapi_keyauth.keys.importer import ImportOutcome, Line

Format = Literal["csv", "jsonl"]
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def import_file(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with a header row, or JSON lines; '-' for standard input.")
    ],
    format_name: Annotated[
        Format | None, typer.Option("--format", help="Format of the file. Default: by its suffix (.csv, .jsonl).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="All checks, without writing anything.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="No error for keys that exist already: skip them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import keys of another system by the hashes of their tokens: all of them, or none if a line is invalid."""
    kind = format_name or _SUFFIXES.get(Path(file).suffix.lower())
    if kind is None:
        raise typer.BadParameter("give --format csv or --format jsonl")
    job = _Import(_read(file, kind), dry_run=dry_run, skip_existing=skip_existing)
    outcome, is_open = run_command(job.run, as_json=as_json, on_interrupt=job.explain_interrupt)
    if isinstance(outcome, ImportRefused):
        _complain(outcome, as_json=as_json)
        raise typer.Exit(Exit.REFUSED)
    if as_json:
        counts = {"imported": outcome.imported, "skipped": outcome.skipped, "with_all_scopes": outcome.with_all_scopes}
        print_json({**counts, "dry_run": dry_run})
        return
    what = "would be imported" if dry_run else "imported"
    say(f"{outcome.imported} keys {what}, {outcome.skipped} existed already.")
    if outcome.with_all_scopes:
        say(f"{outcome.with_all_scopes} of them name no scopes: they have '*' (all except keys:* and admin).")
    if not is_open:
        say("Their tokens are refused until the setting imported_prefixes contains what they start with.")


class _Import:
    """One import, which Ctrl-C ends in a known state."""

    def __init__(self, lines: list[Line], *, dry_run: bool, skip_existing: bool) -> None:
        self._lines = lines
        self._dry_run = dry_run
        self._skip_existing = skip_existing
        self._steps = 0
        self._imported = 0

    async def run(self, auth: KeyAuth) -> tuple[ImportOutcome | ImportRefused, bool]:
        """Import the lines; also return whether any imported token is accepted."""
        with tracking("checking", len(self._lines)) as tracker:
            importing = asyncio.ensure_future(self._import(auth, tracker))
            try:
                return await asyncio.shield(importing), bool(auth.settings.imported_prefixes)
            except asyncio.CancelledError:  # Ctrl-C
                if self._steps < len(self._lines):
                    importing.cancel()
                # A transaction that has begun completes within moments; then the last line can say what it wrote.
                await asyncio.wait([importing])
                raise

    async def _import(self, auth: KeyAuth, tracker: Tracker) -> ImportOutcome | ImportRefused:
        def advance(steps: int) -> None:
            tracker.advance(steps)
            self._steps += steps  # one for each line that is checked, then one for each that is written
            if self._steps == len(self._lines) and not self._dry_run:
                tracker.restart("writing")

        try:
            outcome = await auth.keys.import_lines(
                self._lines, dry_run=self._dry_run, skip_existing=self._skip_existing, advance=advance
            )
        except ImportRefused as refused:
            return refused
        self._imported = 0 if self._dry_run else outcome.imported
        return outcome

    def explain_interrupt(self) -> str:
        """Return what an interrupted import has written."""
        if self._imported:
            return f"Interrupted after the commit: {self._imported} keys were imported."
        return "Interrupted. Nothing was written."


def _complain(refused: ImportRefused, *, as_json: bool) -> None:
    if as_json:
        problem: dict[str, Any] = {
            "code": "bad_lines",
            "detail": f"{refused.how_many}; nothing was written.",
            "lines": [bad._asdict() for bad in refused.bad_lines],
        }
        sys.stderr.write(json.dumps(problem) + "\n")
        return
    for bad in refused.bad_lines:
        place = f"line {bad.line}: " if bad.line else ""
        say(f"{place}{'' if bad.field is None else f'{bad.field} '}{bad.message}")
    unnamed = refused.count - len(refused.bad_lines)
    more = f" ({unnamed} more are not shown)" if unnamed else ""
    say(f"{refused.how_many}{more}. Nothing was written.")


def _read(file: str, kind: Format) -> list[Line]:
    with ExitStack() as cleanup:
        try:
            source = (
                sys.stdin if file == "-" else cleanup.enter_context(Path(file).open(encoding="utf-8-sig", newline=""))
            )
            return list(_read_csv(source) if kind == "csv" else _read_json_lines(source))
        except OSError as error:
            raise typer.BadParameter(f"the file cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise typer.BadParameter("the file is not UTF-8") from None


def _read_csv(source: TextIO) -> Iterator[Line]:
    from fastapi_keyauth.keys.importer import Line

    rows = csv.reader(source, strict=True)
    heading: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield Line(rows.line_num, {}, "is not CSV: a quote is open or misplaced")
            return
        if heading is None:
            heading = row
            _check_heading(heading)
        elif len(row) == len(heading):
            yield Line(rows.line_num, dict(zip(heading, row, strict=True)))
        elif row:
            yield Line(rows.line_num, {}, f"has {len(row)} values, but the header row has {len(heading)}")


def _check_heading(heading: list[str]) -> None:
    from fastapi_keyauth.keys.import_columns import ImportedKey

    known = set(ImportedKey.model_fields)
    if len(set(heading)) < len(heading) or not known.issuperset(heading):
        # The line is not repeated: in a file without a header row it holds hashes.
        raise typer.BadParameter(f"line 1 is not a header row of these columns: {', '.join(sorted(known))}")


def _read_json_lines(source: TextIO) -> Iterator[Line]:
    from fastapi_keyauth.keys.importer import Line

    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            yield Line(number, values)
        else:
            yield Line(number, {}, "is not a JSON object")
