"""The commands of docs/reference/cli.md run, and its tables match the code."""

from __future__ import annotations

import re
import shlex
import string
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastapi_keyauth.cli.app import app
from fastapi_keyauth.cli.runner import Exit
from fastapi_keyauth.store import schema
from tests.docs.pages import BASH, DOCS, find_blocks, find_rows
from tests.helpers.cli import commands
from tests.helpers.session import Servers

PAGE = DOCS / "reference/cli.md"

_LINE = re.compile(r"(?:(?P<name>[A-Z]+)=\$\()?(?P<command>.+?)(?: <<< \"\$(?P<given>[A-Z]+)\")?\)?")


def run_line(line: str, variables: dict[str, str]) -> None:
    """One line as bash would take it: `NAME=$(command <<< "$GIVEN")`. Ours run in this process, which is faster."""
    match = _LINE.fullmatch(line)
    assert match, line
    given = variables[match["given"]] + "\n" if match["given"] else ""
    words = shlex.split(string.Template(match["command"]).substitute(variables))
    if words[0] == "keyauth":
        result = CliRunner().invoke(app, words[1:], input=given)
        assert result.exit_code == 0, (line, result.output)
        printed = result.stdout
    else:
        printed = subprocess.run(words, input=given, text=True, capture_output=True, check=True).stdout
    if match["name"]:
        variables[match["name"]] = printed.rstrip("\n")


@pytest.mark.skipif(not BASH, reason="its commands are those of a Unix")
def test_every_command_of_the_page_runs(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYAUTH_REDIS_URL", servers.fresh_redis_url("valkey"))
    monkeypatch.setenv("KEYAUTH_REDIS_TIMEOUT_S", "10")  # a busy machine is no outage
    monkeypatch.setenv("KEYAUTH_ARGON2_TIME_COST", "1")
    monkeypatch.setenv("KEYAUTH_ARGON2_MEMORY_KIB", "8")
    Path("keys.csv").write_text(f"owner_id,name,hash\nalice,from before,{'0' * 64}\n")
    lines = [line for block in find_blocks(PAGE, "bash") for line in block.source.replace("\\\n", "").splitlines()]
    variables: dict[str, str] = {}
    for line in lines:
        if not line.startswith("pip "):
            run_line(line, variables)
    assert variables["NEW"] != variables["KEY"]


def test_every_command_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    assert [words for words, _ in commands() if f"keyauth {words}" not in text] == []


def test_the_exit_codes_are_the_real_ones() -> None:
    assert [int(row["exit code"]) for row in find_rows(PAGE, "exit code")] == [int(code) for code in Exit]


def test_the_revisions_shown_are_the_real_ones() -> None:
    assert tuple(row["revision"] for row in find_rows(DOCS / "how-to/migrations.md", "revision")) == schema.REVISIONS
