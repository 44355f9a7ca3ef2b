"""Every Python block of the README and the docs runs."""

from __future__ import annotations

import ast
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from tests.docs.examples import MODULE, Page
from tests.docs.pages import PAGES, README, find_blocks, name_of
from tests.helpers.processes import stay_within_the_hour
from tests.helpers.sentry_integrations import own_integrations

LONGEST_PAGE_S = 60.0


@pytest.fixture(autouse=True)
def one_hour() -> None:
    """Run a page within one clock hour, since the end of an hour resets the limits of its examples."""
    stay_within_the_hour(LONGEST_PAGE_S)


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run examples in an empty folder, where they write keyauth.db, without KEYAUTH_* variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KEYAUTH_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_examples_of_a_page_run_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(path)
    monkeypatch.setitem(sys.modules, MODULE, page.module)
    with own_integrations():
        assert page.run() >= len(list(find_blocks(path, "python")))


def test_the_first_example_has_no_more_than_twelve_lines_of_code() -> None:
    first = next(find_blocks(README, "python"))
    lines = ast.unparse(ast.parse(first.source)).splitlines()
    assert len([line for line in lines if line]) <= 12


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_block_of_a_page_goes_without_a_language(path: Path) -> None:
    """A block without a language, or with an unknown one, would never be checked."""
    known = {"python", "bash", "console", "json", "http", "text", "nginx", "sql", "dotenv", "toml", "javascript"}
    known |= {"dockerfile", "ini", "yaml"}  # tests/docs/test_server_files.py
    fences = [line for line in path.read_text("utf-8").splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0
    assert {fence.removeprefix("```") for fence in fences[::2]} <= known


async def test_the_statements_that_clean_up_delete_what_is_over_and_nothing_else(tmp_path: Path) -> None:
    blocks = [block.source for page in PAGES for block in find_blocks(page, "sql")]
    statements = "".join(block for block in blocks if "GRANT" not in block)  # SQLite has no roles
    async with KeyAuth(KeyAuthSettings()) as auth:
        await auth.keys.create("ada", "n")
    with contextlib.closing(sqlite3.connect(tmp_path / "keyauth.db")) as database:
        old = "INSERT INTO keyauth_events (key_id, event, actor, at, changes) VALUES ('x', 'old', 'system', ?, '{}')"
        database.execute(old, ("2025-01-02 03:04:05.000000",))
        database.executescript(statements)
        assert database.execute("SELECT event FROM keyauth_events").fetchall() == [("created",)]
