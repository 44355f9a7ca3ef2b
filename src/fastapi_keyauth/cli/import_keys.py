"""``keyauth keys import``: keys from elsewhere, out of a file."""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from fastapi_keyauth.cli.output import Json, print_json, say
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit, run_command
from fastapi_keyauth.errors import ImportRefused
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.keys.importer import ImportedKey, ImportOutcome, Line

Format = Literal["csv", "jsonl"]
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def import_file(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with a heading, or JSON lines; '-': standard input.")
    ],
    format_name: Annotated[
        Format | None, typer.Option("--format", help="Of the file. Left out: by its ending (.csv, .jsonl).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and write nothing.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out keys that are there already.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take over keys from elsewhere by the hashes of their tokens: all of them, or none where a line is bad."""
    kind = format_name or _SUFFIXES.get(Path(file).suffix.lower())
    if kind is None:
        raise typer.BadParameter("give --format csv or --format jsonl")
    lines = _read(file, kind)

    async def work(auth: KeyAuth) -> tuple[ImportOutcome | ImportRefused, bool]:
        with tracking("keys", len(lines) * (1 if dry_run else 2)) as tracker:
            try:
                outcome: ImportOutcome | ImportRefused = await auth.keys.import_lines(
                    lines, dry_run=dry_run, skip_existing=skip_existing, advance=tracker.advance
                )
            except ImportRefused as refused:
                outcome = refused
        return outcome, bool(auth.settings.imported_prefixes)

    outcome, is_open = run_command(work, as_json=as_json)
    if isinstance(outcome, ImportRefused):
        _complain(outcome, as_json=as_json)
        raise typer.Exit(Exit.REFUSED)
    if as_json:
        print_json({"imported": outcome.imported, "skipped": outcome.skipped, "dry_run": dry_run})
        return
    says = "would be imported" if dry_run else "imported"
    say(f"{outcome.imported} keys {says}, {outcome.skipped} were there already.")
    if not is_open:
        say("Their tokens are refused until the setting imported_prefixes says what they start with.")


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
            raise typer.BadParameter("the file is no UTF-8") from None


def _read_csv(source: TextIO) -> Iterator[Line]:
    rows = csv.reader(source, strict=True)
    heading: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield Line(rows.line_num, {}, "is no CSV: a quote is open or misplaced")
            return
        if heading is None:
            heading = row
            _check_heading(heading)
        elif len(row) == len(heading):
            yield Line(rows.line_num, dict(zip(heading, row, strict=True)))
        elif row:
            yield Line(rows.line_num, {}, f"has {len(row)} values where the heading has {len(heading)}")


def _check_heading(heading: list[str]) -> None:
    known = set(ImportedKey.model_fields)
    if len(set(heading)) < len(heading) or not known.issuperset(heading):
        # It is not repeated: in a file without a heading it holds hashes.
        raise typer.BadParameter(f"line 1 is no heading, or has a column that is none of {', '.join(sorted(known))}")


def _read_json_lines(source: TextIO) -> Iterator[Line]:
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
            yield Line(number, {}, "is no JSON object")
