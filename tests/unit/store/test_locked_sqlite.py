"""SQLite locked by another process: reads continue, writes get a 503, and it recovers by itself."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from fastapi_keyauth import KeyAuth, SetupError, StoreUnavailable
from fastapi_keyauth.store import database, engine
from tests.helpers.keys import authenticate, make_key
from tests.helpers.waiting import until

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a separate connection that may lock the file."""
    path = tmp_path / "keyauth.db"
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
async def test_reads_continue_and_writes_get_a_503(
    make_auth: MakeAuth, lock: sqlite3.Connection, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "POOL_TIMEOUT_S", 1.0)
    auth = make_auth(max_staleness_s=0)
    auth._parts.database._timeout_s = 1.0
    async with auth:
        warm, *cold = [await make_key(auth) for _ in range(12)]
        session = await auth.sessions.create("alice")
        await authenticate(auth, warm.token)
        lock.execute(f"BEGIN {how}")
        # More than there are connections: those that are opened now must be able to read as well.
        seen = await asyncio.gather(*(authenticate(auth, key.token) for key in (warm, *cold)))
        assert len(seen) == 12
        assert await auth.sessions.resolve(session, None)  # type: ignore[arg-type]  # the built-in ones need no connection
        assert (await auth.keys.get(warm.key.id)).status == "active"
        writes = [auth.keys.revoke(warm.key.id), auth.keys.create("a", "n"), auth.sessions.create("bob")]
        answers = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
        assert not auth._parts.database._breaker.is_open
        await auth._parts.usage.flush()
        assert auth._parts.usage.count_lost() == 12
        lock.execute("ROLLBACK")
        await auth.keys.revoke(warm.key.id)
        await auth._parts.usage.flush()
        assert auth._parts.usage.count_lost() == 0
        assert auth._parts.database._engine is not None
        pool: Any = auth._parts.database._engine.pool
        await until(lambda: pool.checkedout() == 0)  # the housekeeping reads now and then


async def test_changes_behind_usage_and_other_changes_wait_as_long_as_the_first(
    make_auth: MakeAuth, lock: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "POOL_TIMEOUT_S", 0.0)  # only readers have so little time
    async with make_auth() as auth:
        used, revoked = [await make_key(auth) for _ in range(2)]
        await authenticate(auth, used.token)
        lock.execute("BEGIN IMMEDIATE")
        changes = [
            asyncio.ensure_future(change)
            for change in (auth._parts.usage.flush(), auth.sessions.create("ada"), auth.keys.revoke(revoked.key.id))
        ]
        await until(auth._parts.database._writer.locked)
        lock.execute("ROLLBACK")
        await asyncio.gather(*changes)
        assert (await auth.keys.get(revoked.key.id)).status == "revoked"
        assert auth._parts.usage.count_lost() == 0


async def test_revocations_pass_the_changes_that_wait_for_the_writer(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        revoked = await make_key(auth)
        session = await auth.sessions.create("ada")
        done: list[str] = []

        async def note(name: str, change: Awaitable[object]) -> None:
            await change
            done.append(name)

        writer = auth._parts.database._writer
        async with asyncio.TaskGroup() as tasks, writer:
            for name in ("first", "second", "third"):
                tasks.create_task(note(name, auth.sessions.create(name)))
            tasks.create_task(note("key", auth.keys.revoke(revoked.key.id)))
            tasks.create_task(note("session", auth.sessions.revoke(session)))
            await until(lambda: len(writer._waiters or ()) == 3)  # asyncio has no public count
    assert set(done[1:3]) == {"key", "session"}  # after one that waited for the writer already


@pytest.fixture
def new_file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a separate connection to a file that no KeyAuth has opened yet; any thread may use it."""
    connection = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE theirs (id)")
    yield connection
    connection.close()


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_start_waits_for_who_writes_to_a_new_file(
    make_auth: MakeAuth, new_file: sqlite3.Connection, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            new_file.execute("COMMIT")

    monkeypatch.setattr(engine, "sleep", sleep)
    new_file.execute(f"BEGIN {how}")
    async with make_auth(database_url=f"sqlite+aiosqlite:///{tmp_path / 'new.db'}") as auth:
        await make_key(auth)
    assert len(waits) == 3
    new_file.execute("SELECT * FROM theirs")  # a connection knows the mode as of its last look
    assert new_file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_start_fails_with_a_sentence_if_a_new_file_stays_locked(
    make_auth: MakeAuth, new_file: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WAL_TIMEOUT_S", 0.05)
    new_file.execute("BEGIN IMMEDIATE")
    with pytest.raises(SetupError, match=r"new\.db does not answer \(.*locked\)\.$"):
        await make_auth(database_url=f"sqlite+aiosqlite:///{tmp_path / 'new.db'}").__aenter__()


@pytest.mark.usefixtures("stack")
async def test_a_disk_that_hangs_collects_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Semaphore(0), threading.Event()

    def hang(*_: object) -> None:
        asked.release()
        answers.wait()

    monkeypatch.setattr(engine, "_probe_sqlite", hang)
    probe = engine.create_prober(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", text("SELECT 1"))
    assert probe is not None
    asking = [asyncio.ensure_future(probe()) for _ in range(3)]
    await asyncio.to_thread(asked.acquire)
    asking.pop().cancel()
    asking.append(asyncio.ensure_future(probe()))
    await asyncio.sleep(0)
    answers.set()
    await asyncio.gather(*asking)
    assert not asked.acquire(blocking=False)


async def test_missing_tables_are_an_outage_until_they_exist_again(
    make_auth: MakeAuth, lock: sqlite3.Connection
) -> None:
    async with make_auth() as auth:
        key = await make_key(auth)
        lock.execute("ALTER TABLE keyauth_keys RENAME TO moved")
        with pytest.raises(StoreUnavailable):
            await authenticate(auth, key.token)
        await until(lambda: auth._parts.database._breaker.is_open)
        lock.execute("ALTER TABLE moved RENAME TO keyauth_keys")
        await until(lambda: not auth._parts.database._breaker.is_open)
        await authenticate(auth, key.token)
