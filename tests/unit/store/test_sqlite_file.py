"""A file of SQLite that is deleted, moved or replaced under a running process."""

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from fastapi_keyauth import InvalidApiKey, KeyAuth, KeyAuthSettings, StoreUnavailable
from tests.helpers.keys import authenticate
from tests.helpers.waiting import until


def make_auth(file: Path) -> KeyAuth:
    url = f"sqlite+aiosqlite:///{file}"
    return KeyAuth(
        KeyAuthSettings(_env_file=None, database_url=url, argon2_time_cost=1, argon2_memory_kib=8, max_staleness_s=0)
    )


async def test_a_deleted_file_loses_no_change_that_was_answered(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    async with make_auth(file) as auth:
        token = (await auth.keys.create("ada", "before")).token
        kept = file.rename(tmp_path / "elsewhere.db")
        with pytest.raises(StoreUnavailable):
            await auth.keys.create("ada", "lost")
        await until(lambda: auth._parts.database._breaker.is_open)
        assert not file.exists(), "an empty file in its place"
        kept.rename(file)
        await until(lambda: not auth._parts.database._breaker.is_open)
        await auth.keys.create("ada", "after")
        assert (await authenticate(auth, token)).name == "before"
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM keyauth_keys ORDER BY name").fetchall() == [("after",), ("before",)]


async def test_a_file_that_replaced_the_open_one_decides(tmp_path: Path) -> None:
    file, backup = tmp_path / "keys.db", tmp_path / "backup.db"
    async with make_auth(backup) as auth:
        kept = (await auth.keys.create("ada", "kept")).token
    async with make_auth(file) as auth:
        gone = (await auth.keys.create("ada", "gone")).token
        await authenticate(auth, gone)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        backup.replace(file)
        await auth._parts.store.lineage.check()
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, gone)
        assert (await authenticate(auth, kept)).name == "kept"


async def test_a_start_that_creates_a_file_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for expected in (1, 0):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fastapi_keyauth"):
            async with make_auth(tmp_path / "keys.db"):
                await asyncio.sleep(0)
        assert caplog.text.count("created a new database file") == expected
