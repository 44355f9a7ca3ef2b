"""Engines, and the settings of their connections to each kind of database."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, Executable, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.store.health import PROBE_TIMEOUT_S
from fastapi_keyauth.store.postgres import POOLED, is_pooled, split_url

Prober = Callable[[], Awaitable[None]]
"""Sends a statement to the database. Raises the driver's error if it is not answered."""

POOL_TIMEOUT_S = 2.0
POOL_SIZE = 5
"""Number of connections that stay open."""
MAX_CONNECTIONS = 15
"""Maximum number of connections of one process, unless the URL sets ``pool_size``."""
WAL_TIMEOUT_S = 10.0
"""Time for other processes to release an SQLite file that is not in WAL mode yet."""
WRITES = "keyauth_writes"
"""Execution option of a connection that will write."""


def max_connections(url: str) -> int:
    """Return the maximum number of connections of one process."""
    return int(str(make_url(url).query.get("pool_size", MAX_CONNECTIONS)))


async def shares_connections(url: str) -> bool:
    """Return whether a pooler such as PgBouncer is in front of the database."""
    parsed = make_url(url)
    return parsed.get_backend_name() == "postgresql" and await is_pooled(parsed)


def create_engine(url: str, timeout_s: float, *, has_pooler: bool = False) -> AsyncEngine:
    """Create an engine.

    Args:
        url: URL of the database.
        timeout_s: Seconds that a statement may take, waiting for locks included.
        has_pooler: Whether a pooler shares the connections among clients.
    """
    parsed = make_url(url)
    size = max_connections(url)
    # Parameters of statements (hashes, names) stay out of error messages and logs.
    options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": POOL_TIMEOUT_S}
    options |= {"pool_size": min(POOL_SIZE, size), "max_overflow": max(0, size - POOL_SIZE)}
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": timeout_s}
        if _is_in_memory(parsed):
            # A database in memory lives as long as its one connection, which transactions must not share.
            options |= {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
        engine = create_async_engine(parsed, **options)
        _configure_sqlite(engine)
        return engine
    plain, arguments = _postgres_arguments(parsed, has_pooler)
    options["connect_args"] = arguments | {"command_timeout": timeout_s}
    return create_async_engine(plain, pool_pre_ping=True, **options)


def _postgres_arguments(parsed: URL, has_pooler: bool) -> tuple[URL, dict[str, Any]]:
    plain, arguments = split_url(parsed)
    return plain, {**arguments, **(POOLED if has_pooler else {})}


def create_prober(url: str, question: Executable, *, has_pooler: bool = False) -> Prober | None:
    """Return a prober that opens a new connection each time; None for a database in memory, which needs no probe."""
    parsed = make_url(url)
    if _is_in_memory(parsed):
        return None
    if parsed.get_backend_name() == "sqlite":
        return _in_one_thread(partial(_probe_sqlite, create_async_engine(parsed), str(question)))
    plain, arguments = _postgres_arguments(parsed, has_pooler)
    timeouts = {"timeout": PROBE_TIMEOUT_S, "command_timeout": PROBE_TIMEOUT_S}
    engine = create_async_engine(plain, poolclass=NullPool, hide_parameters=True, connect_args=arguments | timeouts)

    async def probe() -> None:
        async with engine.connect() as connection:
            await connection.execute(question)

    return probe


def _in_one_thread(work: Callable[[], None]) -> Prober:
    """Return a prober that runs the work in a thread. While one runs, no second one starts: a disk may hang."""
    calls: SingleFlight[str, None] = SingleFlight("keyauth-database-probe")

    async def probe() -> None:
        await calls.run("", partial(asyncio.to_thread, work))

    return probe


def _probe_sqlite(engine: AsyncEngine, question: str) -> None:
    """Execute the question with the standard library: an abandoned thread of aiosqlite outlives the event loop."""
    with closing(_connect_plainly(engine, PROBE_TIMEOUT_S)) as connection:
        connection.execute(question)


def _connect_plainly(engine: AsyncEngine, timeout_s: float) -> sqlite3.Connection:
    """Open a connection of the standard library, with the options of the URL."""
    arguments: tuple[Any, Any] = engine.dialect.create_connect_args(engine.url)
    args, options = arguments
    connection: sqlite3.Connection = sqlite3.connect(*args, **{**options, "timeout": timeout_s})
    return connection


def _is_in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def prepare_sqlite(engine: AsyncEngine) -> None:
    """Switch the file to WAL mode, which permits readers beside one writer. The file keeps this mode.

    Call it in a thread, because it sleeps. It uses the standard library: if a first connection of aiosqlite fails, its
    thread outlives the event loop.

    Raises:
        sqlite3.Error: If the file cannot be opened or written to, or others write to it for ``WAL_TIMEOUT_S``.
    """
    deadline = monotonic() + WAL_TIMEOUT_S
    # SQLite's own timeout does not apply: if two processes switch, it gives up immediately to prevent a deadlock.
    with closing(_connect_plainly(engine, timeout_s=0)) as connection:
        while not _switch_to_wal(connection, deadline):
            sleep(0.01)


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> bool:
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        if not is_busy or monotonic() > deadline:
            raise
        return False
    return True


def _configure_sqlite(engine: AsyncEngine) -> None:
    """Let writers take turns instead of failing midway, and make commits durable."""

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below, not by the driver
        # The built-in function handles only ASCII.
        connection.create_function("lower", 1, lambda text: text.lower() if isinstance(text, str) else text)
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")  # a key answered with 201 survives a power cut
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # IMMEDIATE: otherwise a transaction that reads and then writes fails if another one wrote in between.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
