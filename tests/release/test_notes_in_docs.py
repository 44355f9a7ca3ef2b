"""The tables of the docs say what was added in 0.2, of the same names as `test_added_in.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ProblemType, find_rows

NOTE = "Added in 0.2"
OLD: dict[str, list[str]] = json.loads(Path(__file__).with_name("names_0_1.json").read_text("utf-8"))

SETTINGS = DOCS / "reference/settings.md"
TELEMETRY = DOCS / "reference/telemetry.md"
HTTP = DOCS / "reference/http.md"
ERRORS = DOCS / "reference/errors.md"
COMMANDS = DOCS / "reference/cli.md"


def is_new(kind: str, cell: str) -> bool:
    """Return whether 0.1 had none of the names in a cell."""
    return not set(re.findall(r"[a-z][a-z0-9_.]*[a-z0-9]", cell)) & set(OLD[kind])


def name_route(row: ProblemType) -> str:
    """Return method and path of a row. The first path stands for all of its row."""
    path = re.search(r"/[^`,\s]+", row["path"])
    assert path
    return f"{row['method']} {path[0]}"


@pytest.mark.parametrize(
    ("kind", "page", "column", "text"),
    [
        ("settings", SETTINGS, "setting", "meaning, and reason for the default"),
        ("events", TELEMETRY, "kind", "when"),
        ("metrics", TELEMETRY, "instrument", "meaning"),
        ("warnings", TELEMETRY, "code", "risk, and what to do"),
        ("log_events", TELEMETRY, "keyauth_event", "meaning"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_of_new_names_have_the_note_and_no_others(kind: str, page: Path, column: str, text: str) -> None:
    rows = find_rows(page, column, text)
    assert rows
    assert [row[column] for row in rows if (NOTE in row[text]) != is_new(kind, row[column])] == []


def test_rows_of_new_routes_have_the_note_and_no_others() -> None:
    rows = find_rows(HTTP, "method", "path", "action")
    assert rows
    assert [name_route(row) for row in rows if (NOTE in row["action"]) != (name_route(row) not in OLD["routes"])] == []


def test_rows_of_new_query_parameters_have_the_note_and_no_others() -> None:
    rows = find_rows(HTTP, "parameter", "effect")
    assert rows
    old = [name.split()[-1] for name in OLD["queries"] if name.startswith("GET /api-keys ")]
    assert [row["parameter"] for row in rows if (NOTE in row["effect"]) != (row["parameter"] not in old)] == []


def test_sections_of_new_codes_have_the_note_and_no_others() -> None:
    _, *parts = re.split(r"^### `(\w+)`$", ERRORS.read_text("utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert len(sections) > 15
    assert [code for code, text in sections.items() if (NOTE in text) != (code not in OLD["codes"])] == []


def test_sections_of_new_commands_have_the_note() -> None:
    sections = re.split(r"^## ", COMMANDS.read_text("utf-8"), flags=re.MULTILINE)
    groups = {words.split()[0] for words in OLD["commands"]}
    shown = [(text, set(re.findall(r"keyauth (\w+)", text))) for text in sections[1:]]
    added = {"audit", "owners", "usage"}
    assert not added & groups
    assert [group for group in added if not any(NOTE in text for text, found in shown if group in found)] == []
