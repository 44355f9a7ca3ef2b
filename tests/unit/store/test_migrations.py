"""Upgrades of tables with their rows, and starts with tables that are not the newest."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine.reflection import Inspector

from fastapi_keyauth import KeyAuth, KeyAuthSettings, SetupError
from fastapi_keyauth.store import Database, schema, upgrade
from fastapi_keyauth.store.tables import EventRow, UsageHourRow, metadata, table
from tests.helpers.keys import authenticate
from tests.helpers.old_database import (
    KEY_ID,
    LONG_AGO,
    OLD_EVENTS,
    TOKEN,
    make_old_database,
    run,
)
from tests.helpers.servers import PASSWORD
from tests.helpers.session import Servers


def make_auth(url: str) -> KeyAuth:
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=url, argon2_time_cost=1, argon2_memory_kib=8))


def execute(url: str, *statements: str) -> Any:
    return run(url, lambda connection: [connection.execute(text(statement)) for statement in statements] and None)


def differences(connection: Connection) -> list[Any]:
    options = {
        "version_table": schema.VERSION_TABLE,
        "include_name": lambda name, kind, _: kind != "table" or name.startswith("keyauth_"),
    }
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def test_the_revisions_written_down_are_those_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", "fastapi_keyauth:store/migrations")
    files = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in files)[::-1] == schema.REVISIONS


async def test_models_and_migrations_agree(database_url: str) -> None:
    assert await make_auth(database_url).upgrade() == list(schema.REVISIONS)
    assert await run(database_url, differences) == []


async def test_an_empty_database_gets_the_newest_tables_at_start(database_url: str) -> None:
    for _ in range(2):
        async with make_auth(database_url) as auth:
            assert await upgrade.find_revision(database_url) == schema.NEWEST
            assert await auth.upgrade() == []
    assert await run(database_url, differences) == []


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "made before there were revisions"])
async def test_rows_survive_all_upgrades_from_the_first_tables(database_url: str, is_marked: bool) -> None:
    await make_old_database(database_url)
    if is_marked:
        await run(database_url, lambda connection: schema.mark(connection, schema.FIRST))
    auth = make_auth(database_url)
    assert await auth.upgrade() == list(schema.REVISIONS[1:])
    assert await run(database_url, differences) == []
    async with auth:
        assert (await authenticate(auth, TOKEN)).metadata == {"team": "é"}
        old = await auth.keys.get(KEY_ID)
        assert (old.name, old.created_at, old.created_by) == ("old", LONG_AGO, "code")
        assert (await auth.keys.rotate(KEY_ID)).key.hint.startswith(f"ka_live_{KEY_ID}_")
        made = await auth.keys.create("ada", "new", allowed_origins=["https://a.example"])
        assert [key.name for key in await auth.keys.list("ada")] == ["new", "old"]
        assert (await authenticate(auth, made.token)).name == "new"
    events = await run(
        database_url, lambda connection: connection.execute(table(EventRow).select().order_by("id")).all()
    )
    assert [(event.actor, event.by_admin) for event in events[: len(OLD_EVENTS)]] == [
        ("code", False),
        ("user:root", True),
        (f"key:{KEY_ID}", False),
        ("user:ada", False),
    ]
    hours = await run(database_url, lambda connection: connection.execute(table(UsageHourRow).select()).all())
    assert (KEY_ID, 1, "requests", "", "v0.1", 2**40, 0) in [tuple(row) for row in hours]


async def test_tables_that_are_behind_stop_the_start_with_a_sentence(database_url: str) -> None:
    await make_old_database(database_url)
    with pytest.raises(SetupError, match="`keyauth db upgrade`") as stopped:
        async with make_auth(database_url):
            pytest.fail("started")
    assert str(stopped.value).count(". ") == 0
    assert PASSWORD not in str(stopped.value)
    assert not await run(database_url, lambda connection: inspect(connection).has_table(schema.VERSION_TABLE))


async def test_tables_that_are_ahead_are_warned_about_and_served(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A rolling deployment: the new version has upgraded the tables, and servers of this version start again."""
    async with make_auth(database_url):
        pass
    await execute(
        database_url,
        "UPDATE keyauth_alembic_version SET version_num = '9999'",
        "ALTER TABLE keyauth_keys ADD COLUMN of_the_future VARCHAR(9)",
    )
    auth = make_auth(database_url)
    with caplog.at_level(logging.WARNING, "fastapi_keyauth"):
        async with auth:
            token = (await auth.keys.create("ada", "n")).token
            assert (await authenticate(auth, token)).name == "n"
    assert "9999" in caplog.text
    with pytest.raises(SetupError, match="newer version"):
        await auth.upgrade()


async def test_an_upgrade_that_fails_half_way_changes_nothing(database_url: str) -> None:
    await make_old_database(database_url)
    await execute(database_url, "CREATE INDEX ix_keyauth_origins_key ON keyauth_origins (key_id)")
    with pytest.raises(SetupError, match="ix_keyauth_origins_key"):
        await make_auth(database_url).upgrade()
    assert await upgrade.find_revision(database_url) == schema.FIRST
    columns = await run(database_url, lambda connection: inspect(connection).get_columns("keyauth_secrets"))
    assert "scheme" not in [column["name"] for column in columns]


async def test_concurrent_starts_and_upgrades_take_turns(database_url: str) -> None:
    auths = [make_auth(database_url) for _ in range(4)]
    await asyncio.gather(*(auth.__aenter__() for auth in auths))
    await asyncio.gather(*(auth.__aexit__(None, None, None) for auth in auths))
    await execute(database_url, *(f"DROP TABLE {name}" for name in (*metadata.tables, schema.VERSION_TABLE)))
    await make_old_database(database_url)
    applied = await asyncio.gather(*(make_auth(database_url).upgrade() for _ in range(4)))
    assert sorted(applied) == [[], [], [], list(schema.REVISIONS[1:])]


UPGRADE_ALL = """
import asyncio, sys
from fastapi_keyauth import KeyAuth, KeyAuthSettings
print("alembic" in sys.modules, flush=True)
input()
for url in sys.stdin.read().split():
    print(len(asyncio.run(KeyAuth(KeyAuthSettings(_env_file=None, database_url=url)).upgrade())))
"""


@pytest.fixture
def both_urls(servers: Servers, tmp_path: Path) -> Iterator[list[str]]:
    with ExitStack() as cleanup:
        postgres = cleanup.enter_context(servers.fresh_postgres_url())
        yield [postgres, f"sqlite+aiosqlite:///{tmp_path / 'keyauth.db'}"]


async def test_two_concurrent_processes_apply_each_revision_once(both_urls: list[str]) -> None:
    for url in both_urls:
        await make_old_database(url)
    pipes: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    start = asyncio.create_subprocess_exec
    processes = [await start(sys.executable, "-c", UPGRADE_ALL, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert await process.stdout.readline() == b"False\n", "Alembic is imported though nothing is upgraded"
    said = await asyncio.gather(*(process.communicate("\n".join(["", *both_urls]).encode()) for process in processes))
    counts = [list(map(int, output.split())) for output, _ in said]
    assert [sum(applied) for applied in zip(*counts, strict=True)] == [len(schema.REVISIONS) - 1] * 2
    for url in both_urls:
        assert await run(url, differences) == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_an_upgrade_gives_up_on_a_table_that_stays_in_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later statements wait behind the upgrade, so it must not wait for long."""
    monkeypatch.setattr(upgrade, "TABLE_LOCK_TIMEOUT_S", 0.1)
    await make_old_database(database_url)
    reader = Database(database_url)
    async with reader.opening(), reader.read() as connection:
        await connection.execute(text("SELECT count(*) FROM keyauth_secrets"))
        with pytest.raises(SetupError, match="lock timeout"):
            await make_auth(database_url).upgrade()
    await reader.close()
    assert await make_auth(database_url).upgrade() == list(schema.REVISIONS[1:])


async def test_the_tables_and_the_version_of_the_application_stay_unchanged(database_url: str) -> None:
    await execute(
        database_url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('theirs')",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY)",
    )
    await make_auth(database_url).upgrade()

    def look(connection: Connection) -> tuple[Any, set[str]]:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        return version, {name for name in inspect(connection).get_table_names() if not name.startswith("keyauth_")}

    assert await run(database_url, look) == (["theirs"], {"alembic_version", "notes"})


async def test_tables_created_between_two_checks_are_not_taken_for_old_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Several workers start on an empty database: one creates the tables while another checks which exist."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'keyauth.db'}"
    engine = create_engine(url.replace("+aiosqlite", ""), isolation_level="AUTOCOMMIT")
    look = Inspector.has_table
    looks = 0

    def look_and_let_another_worker_start(inspector: Inspector, *args: Any, **options: Any) -> bool:
        nonlocal looks
        looks += 1
        found = look(inspector, *args, **options)
        if looks == 1:
            with monkeypatch.context() as other, engine.connect() as connection:
                other.setattr(Inspector, "has_table", look)
                schema.create(connection)
        return found

    monkeypatch.setattr(Inspector, "has_table", look_and_let_another_worker_start)
    with engine.connect() as connection:
        assert schema.find_revision(connection) == schema.NEWEST
    engine.dispose()
