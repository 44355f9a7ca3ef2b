"""Commands, variables and files in the docs exist, and the README's first example works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from uvicorn.main import main as uvicorn_command

from fastapi_keyauth import KeyAuthSettings
from tests.docs.folder import Folder
from tests.docs.pages import BASH, PAGES, README, ROOT, Block, find_blocks, name_of

WRITTEN_BY_THE_READER = {"main.py", "conftest.py", "create_key.py", ".gitleaks.toml"}
SOURCE = ROOT / "src" / "fastapi_keyauth"

SHELL_BLOCKS = [block for page in PAGES for block in find_blocks(page, "bash|console")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = "\n".join(block.source for block in SHELL_BLOCKS if block.page == page)
    named = re.findall(r"`make ([a-z]+)", page.read_text("utf-8")) + re.findall(r"^make ([a-z]+)", lines, re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_variable_is_a_setting(page: Path) -> None:
    named = re.findall(r"KEYAUTH_([A-Z0-9_]+)", page.read_text("utf-8"))
    assert {name.lower() for name in named} <= {*KeyAuthSettings.model_fields, "app"}  # of the command line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Names of files in code, seen from the root or from the package."""
    text = page.read_text("utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + [
        block.source for block in find_blocks(page, "bash|console|text") if block.page == page
    ]
    named = {name for part in code for name in re.findall(r"[\w./-]+\.(?:py|lua|md|toml)\b", part)}
    named |= {name for part in code for name in re.findall(r"\b(?:src|docs|tests|example_app|limiter)/[\w./-]*", part)}
    missing = [name for name in named if not ((ROOT / name).exists() or (SOURCE / name).exists())]
    assert set(missing) <= WRITTEN_BY_THE_READER


@pytest.mark.skipif(not BASH, reason="needs bash")
@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_a_shell_block_is_one_that_a_shell_understands(block: Block) -> None:
    checked = subprocess.run([BASH, "-n"], input=block.source, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_option_of_uvicorn_exists() -> None:
    options = {name for option in uvicorn_command.params for name in (*option.opts, *option.secondary_opts)}
    commands = [line.split() for block in SHELL_BLOCKS for line in block.source.splitlines()]
    used = {word for words in commands if words[:1] == ["uvicorn"] for word in words if word.startswith("--")}
    assert used
    assert used <= options


def test_every_extra_exists() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    named = {name for page in PAGES for name in re.findall(r"(?:\.|keyauth)\[([\w,]+)\]", page.read_text("utf-8"))}
    assert {extra for names in named for extra in names.split(",")} <= extras


def test_the_demo_takes_the_options_that_are_named() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "example_app", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    named = {
        word for page in PAGES for word in re.findall(r"python -m example_app (--[a-z]+)", page.read_text("utf-8"))
    }
    assert named
    assert [option for option in named if option not in shown] == []


@pytest.mark.skipif(not (BASH and shutil.which("curl")), reason="needs curl and bash")
def test_the_first_minutes_of_the_readme_work(tmp_path: Path) -> None:
    """The README's file and its commands, against a real server."""
    (app,) = [block.source for block in find_blocks(README, "python")]
    (call,) = [block.source for block in find_blocks(README, "bash") if "curl" in block.source]
    with Folder(tmp_path, {"main.py": app}) as folder:
        assert folder.run(call) == '{"hello":"laptop","owner":"acme"}' * 2
