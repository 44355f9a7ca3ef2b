"""The files of docs/how-to/testing.md, run by pytest in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS, find_blocks

HANG_S = 150.0
"""A guard against hanging, long enough for a busy machine."""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Without the plugins that happen to be installed here, which take longer to load than the tests to run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_S, check=False)


def test_the_files_of_the_page_pass(tmp_path: Path) -> None:
    (configuration,) = find_blocks(DOCS / "how-to/testing.md", "toml")
    (tmp_path / "pyproject.toml").write_text(configuration.source, "utf-8")
    for block in find_blocks(DOCS / "how-to/testing.md", "python"):
        first, _, _ = block.source.partition("\n")
        if first.startswith("# ") and first.endswith(".py"):
            (tmp_path / first.removeprefix("# ")).write_text(block.source, "utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "conftest.py",
        "main.py",
        "pyproject.toml",
        "test_existing.py",
        "test_notes.py",
        "test_routes.py",
    ]
    done = run_pytest(tmp_path, "--strict-markers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout
    assert not (tmp_path / "keyauth.db").exists()


def test_an_app_of_another_keyauth_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from fastapi import FastAPI\n"
        'pytest_plugins = ["fastapi_keyauth.pytest_plugin"]\n'
        "@pytest.fixture\n"
        "def keyauth_app(): return FastAPI()\n"
        "def test_it(keyauth_client): pass\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "Override the fixture keyauth" in done.stdout
