"""`keyauth db`, `keyauth check`, and errors if something is missing or unavailable."""

import asyncio
import json
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from fastapi_keyauth import KeyAuth, KeyAuthSettings, RevokedApiKey
from fastapi_keyauth.cli.checks import _judge_clock
from fastapi_keyauth.domain.tokens import TOKEN_PATTERN
from fastapi_keyauth.limiter.redis.server_info import MAX_CLOCK_DIFFERENCE_S
from fastapi_keyauth.store import schema
from tests.docs.pages import ROOT
from tests.helpers.cli import NOBODY, commands, keyauth, make, read, with_auth
from tests.helpers.keys import authenticate
from tests.helpers.old_database import make_old_database
from tests.helpers.servers import PASSWORD, Server
from tests.helpers.session import PostgresConsole, Servers


def test_every_command_explains_itself_and_speaks_json() -> None:
    found = dict(commands())
    assert len(found) == 26
    for words, command in found.items():
        options = {name for option in command.params for name in option.opts}
        assert "--json" in options, words
        assert command.help, words
        assert all(option.help for option in command.params if "--help" not in option.opts), words
    assert "Exit codes" in keyauth("-h").stdout
    assert keyauth("--version").stdout.startswith("fastapi-keyauth ")


def test_the_script_of_the_package_is_this_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    from fastapi_keyauth.cli import main

    assert EntryPoint("keyauth", scripts["keyauth"], "console_scripts").load() is main


def test_without_its_extra_the_command_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastapi_keyauth.cli import main

    for name in [name for name in sys.modules if name.startswith("fastapi_keyauth.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "extra 'cli'" in capsys.readouterr().err


def test_tables_that_are_behind_are_noticed_and_upgraded() -> None:
    assert read("db", "current") == {"revision": None, "newest": schema.NEWEST, "state": "empty"}
    assert read("check")["findings"][3]["level"] == "warning"
    assert not Path("keyauth.db").exists(), "looking for a database has made one"
    asyncio.run(make_old_database(KeyAuthSettings().database_url))
    assert read("db", "current", code=1)["state"] == "behind"
    assert "keyauth db upgrade" in keyauth("keys", "list", code=3).stderr
    assert {"name": "tables", "level": "error"}.items() <= read("check", code=3)["findings"][4].items()
    assert "0002  " in keyauth("db", "upgrade").stderr
    assert read("db", "upgrade") == {"applied": [], "revision": schema.NEWEST}
    assert "newest" in keyauth("db", "current").stdout
    assert [key["name"] for key in read("keys", "list")["items"]] == ["old"]


def test_a_correct_setup_passes_the_check(redis_url: str) -> None:
    make()
    report = read("check")
    assert report["ok"] is True
    names = [finding["name"] for finding in report["findings"]]
    assert names == ["source", "settings", "versions", "database", "tables", "redis", "leases", "hashing"]
    levels = {finding["name"]: finding["level"] for finding in report["findings"]}
    assert levels.pop("source") == "warning"  # no --app
    assert levels.pop("settings") == "warning"  # this hashing costs nothing
    assert set(levels.values()) == {"ok"}
    assert PASSWORD not in keyauth("check").output


def test_risky_and_broken_settings_are_named(
    start_valkey: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "KEYAUTH_REDIS_URL", start_valkey("--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb").url
    )
    monkeypatch.setenv("KEYAUTH_BLOK_FOR_S", "1")
    said = keyauth("check").stdout
    assert "KEYAUTH_BLOK_FOR_S" in said
    assert "allkeys-lru" in said
    monkeypatch.setenv("KEYAUTH_REDIS_URL", NOBODY)
    monkeypatch.setenv("KEYAUTH_DATABASE_URL", "sqlite:////nowhere/at/all.db")
    report = read("check", code=3)
    assert [found["name"] for found in report["findings"] if found["level"] == "error"] == ["database", "redis"]
    assert "hunter2" not in str(report)
    monkeypatch.setenv("KEYAUTH_BLOCK_FOR_S", "0")
    assert read("check", code=3)["findings"][0]["level"] == "error"


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0.0, "ok"), (MAX_CLOCK_DIFFERENCE_S + 1, "warning"), (-60.0, "warning")]
)
def test_clocks_that_differ_are_warned_about(ahead_s: float, level: str) -> None:
    assert _judge_clock(ahead_s).level == level


async def _check_postgres(url: str) -> list[Any]:
    from fastapi_keyauth.cli.checks import check_database

    return [found async for found in check_database(KeyAuthSettings(database_url=url))]


def test_postgres_is_checked_with_its_clock(servers: Servers) -> None:
    with servers.fresh_postgres_url() as url:
        found = asyncio.run(_check_postgres(url))
    assert [(finding.name, finding.level) for finding in found] == [
        ("database", "ok"),
        ("tables", "ok"),
        ("clock", "ok"),
    ]
    assert found[0].says.startswith("PostgreSQL 1")
    assert PASSWORD not in found[0].says


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "rejects writes: it is a replica"),
        (
            "ALTER TABLE keyauth_keys RENAME TO gone",
            'refuses (ProgrammingError: relation "keyauth_keys" does not',
        ),
    ],
    ids=["read-only", "no-table"],
)
def test_a_database_that_would_refuse_what_is_needed_is_an_error(servers: Servers, statement: str, says: str) -> None:
    with servers.fresh_postgres_url(has_tables=True) as url:
        with PostgresConsole(url) as console:
            console.ask(statement.format(make_url(url).database))
        found = asyncio.run(_check_postgres(url))
    [error] = [finding for finding in found if finding.level == "error"]
    assert error.name == "database"
    assert says in error.says


def test_a_role_that_cannot_write_is_an_error(servers: Servers) -> None:
    with servers.fresh_postgres_url(has_tables=True) as url:
        role = f"reader_{make_url(url).database}"
        with PostgresConsole(url) as console:
            console.ask(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
            console.ask(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            reader = make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)
            found = asyncio.run(_check_postgres(reader))
            console.ask(f"DROP OWNED BY {role}")
            console.ask(f"DROP ROLE {role}")
    [error] = [finding for finding in found if finding.level == "error"]
    assert "lacks permissions for this role: " in error.says
    assert "INSERT on keyauth_keys" in error.says
    assert "SELECT" not in error.says


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("DATABASE_URL", "sqlite:////nowhere/at/all.db", ["keys", "list"]),
        ("DATABASE_URL", "sqlite:////nowhere/at/all.db", ["db", "upgrade"]),
        ("BLOCK_FOR_S", "0", ["keys", "list"]),
        ("REDIS_URL", NOBODY, ["blocks", "list"]),
    ],
)
def test_what_is_out_of_reach_or_wrongly_set_ends_with_3(
    variable: str, value: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"KEYAUTH_{variable}", value)
    assert "hunter2" not in keyauth(*command, code=3).output
    assert json.loads(keyauth(*command, "--json", code=3).stderr.splitlines()[-1])["code"] == "unavailable"


def test_without_redis_in_reach_keys_are_seen_and_changes_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, id = make()
    monkeypatch.setenv("KEYAUTH_REDIS_URL", NOBODY)
    assert len(read("keys", "list")["items"]) == 1
    rotated = keyauth("keys", "rotate", id, "--overlap", "0", code=4)
    assert TOKEN_PATTERN.fullmatch(rotated.stdout.strip())
    assert "stored" in keyauth("keys", "revoke", id, code=4).stderr
    assert read("keys", "show", id)["status"] == "revoked"


def test_workers_learn_of_a_change_immediately(redis_url: str) -> None:
    token, id = make()

    async def work(worker: KeyAuth) -> None:
        assert (await authenticate(worker, token)).id == id
        await asyncio.to_thread(keyauth, "keys", "revoke", id)
        with pytest.raises(RevokedApiKey):
            await authenticate(worker, token)

    with_auth(work)


def test_workers_learn_of_a_change_by_a_command_without_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token, id = make()

    async def work(worker: KeyAuth) -> None:
        assert (await authenticate(worker, token)).id == id
        monkeypatch.delenv("KEYAUTH_REDIS_URL")
        await asyncio.to_thread(keyauth, "keys", "revoke", id)
        await worker._parts.outbox.drain()
        with pytest.raises(RevokedApiKey):
            await authenticate(worker, token)

    with_auth(work)
