"""Startup of `keyauth`: fast, and with the settings of the named application."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastapi_keyauth.cli import import_keys
from fastapi_keyauth.cli.source import app_reference
from fastapi_keyauth.store.imported_keys import ImportStore
from tests.docs.pages import ROOT
from tests.helpers.cli import keyauth, make, read

HEAVY = ("fastapi", "sqlalchemy", "pydantic", "redis", "alembic")

APPLICATION = """
from fastapi import FastAPI
from fastapi_keyauth import KeyAuth, KeyAuthSettings

cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
auth = KeyAuth(KeyAuthSettings(key_prefix="hub", database_url="sqlite:///hub.db", scopes={"models:read": ""}, **cheap))
app = FastAPI()
auth.install(app)
plain = FastAPI()
nested = FastAPI()
auth.install(nested)
KeyAuth(KeyAuthSettings(key_prefix="two")).install(nested)


def create_app():
    return app


def create_nothing():
    raise RuntimeError("no database")
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a module with applications into the current folder."""
    (tmp_path / "hub_main.py").write_text(APPLICATION)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "hub_main"
    sys.modules.pop("hub_main", None)
    app_reference.set(None)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--help"], {}),
        (["keys", "create", "--help"], {}),
        (["--version"], {}),
        ([], {"_KEYAUTH_COMPLETE": "complete_bash", "COMP_WORDS": "keyauth ke", "COMP_CWORD": "1"}),
    ],
    ids=["help", "help of a command", "version", "completion"],
)
def test_help_and_completion_start_without_the_heavy_packages(arguments: list[str], variables: dict[str, str]) -> None:
    code = (
        "import sys, atexit; from fastapi_keyauth.cli import main;"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip()
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("attribute", ["auth", "app", "create_app"])
def test_the_settings_of_the_named_application_are_used_and_shown(application: str, attribute: str) -> None:
    reference = f"{application}:{attribute}"
    created = keyauth("--app", reference, "keys", "create", "--owner", "ada", "--name", "ci", "--scope", "models:read")
    assert created.stdout.startswith("hub_live_")
    assert f"Settings of {reference}: database sqlite+aiosqlite:///hub.db, key prefix hub." in created.stderr
    wrong = ("--scope", "models:raed")
    keyauth("--app", reference, "keys", "create", "--owner", "ada", "--name", "ci", *wrong, code=2)
    [source] = [found for found in _findings("--app", reference) if found["name"] == "source"]
    assert source["level"] == "ok"
    assert reference in source["detail"]


def test_the_application_can_be_named_by_a_variable(application: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYAUTH_APP", f"{application}:auth")
    assert make()[0].startswith("hub_live_")
    assert not any("KEYAUTH_APP" in found["detail"] for found in _findings())


@pytest.mark.parametrize(
    ("attribute", "code", "says"),
    [
        ("plain", 3, "neither a KeyAuth nor an application"),
        ("nested", 3, "2 KeyAuth objects"),
        ("missing", 3, "no attribute 'missing'"),
        ("create_nothing", 3, "RuntimeError: no database"),
        ("", 2, "module:attribute"),
    ],
)
def test_an_application_without_settings_is_an_error(application: str, attribute: str, code: int, says: str) -> None:
    result = keyauth("--app", f"{application}:{attribute}", "keys", "list", code=code)
    assert says in result.stderr.replace("\n", " ")


def test_a_module_that_cannot_be_imported_is_an_error() -> None:
    assert "no_such_module" in keyauth("--app", "no_such_module:app", "keys", "list", code=3).stderr


def test_without_any_setting_the_defaults_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYAUTH_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    assert "use keyauth --app" in keyauth("keys", "list").stderr
    monkeypatch.setenv("KEYAUTH_REALM", "notes")
    assert "--app" not in keyauth("keys", "list").stderr
    [source] = [found for found in _findings() if found["name"] == "source"]
    assert source["level"] == "warning"


def _findings(*options: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(keyauth(*options, "check", "--json").stdout)["findings"]
    return found


class _Bar:
    """A progress bar that records its updates."""

    def __init__(self) -> None:
        self.steps: list[object] = []

    def advance(self, steps: int = 1) -> None:
        self.steps.append(steps)

    def restart(self, text: str) -> None:
        self.steps.append(text)


def _write_records(count: int) -> None:
    records = [json.dumps({"owner_id": "ada", "name": "n", "hash": f"{number:064x}"}) for number in range(count)]
    Path("keys.jsonl").write_text("\n".join(records))


def test_an_import_counts_each_key_once_in_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    _write_records(3)
    bar = _Bar()
    totals: list[int | None] = []

    @contextmanager
    def tracking(_: str, total: int | None = None) -> Iterator[_Bar]:
        totals.append(total)
        yield bar

    monkeypatch.setattr(import_keys, "tracking", tracking)
    keyauth("keys", "import", "keys.jsonl", "--dry-run")
    assert (totals, bar.steps) == ([3], [1, 1, 1])
    bar.steps.clear()
    keyauth("keys", "import", "keys.jsonl")
    assert bar.steps == [1, 1, 1, "writing", 3]


@pytest.mark.parametrize(
    ("method", "says", "written"),
    [
        ("find_known", "Interrupted. Nothing was written.", 0),
        ("_insert", "Interrupted after the commit: 2 keys were imported.", 2),
    ],
    ids=["before writing", "while writing"],
)
def test_an_interrupted_import_reports_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, method: str, says: str, written: int
) -> None:
    _write_records(2)
    real = getattr(ImportStore, method)

    async def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)  # the signal arrives
        if method == "find_known":
            raise asyncio.CancelledError
        return await real(*arguments)

    # A shell that runs the tests in the background has its children ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, ExitStack() as cleanup:
        cleanup.callback(signal.signal, signal.SIGINT, before)
        patch.setattr(ImportStore, method, interrupted)
        assert says in keyauth("keys", "import", "keys.jsonl", code=130).stderr
    assert len(read("keys", "list")["items"]) == written
