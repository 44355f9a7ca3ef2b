"""The engine: connections, transactions, and one error for every way in which a database does not answer."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Executable, Row, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_keyauth.concurrency.uncancellable import ShieldedTasks
from fastapi_keyauth.errors import SetupError, StoreUnavailable
from fastapi_keyauth.settings.urls import masked_url
from fastapi_keyauth.store import schema
from fastapi_keyauth.store.engine import (
    MAX_CONNECTIONS,
    POOL_TIMEOUT_S,
    WRITES,
    Prober,
    create_engine,
    create_prober,
    prepare_sqlite,
)
from fastapi_keyauth.store.health import CircuitBreaker, describe
from fastapi_keyauth.store.read_queue import ReadQueue
from fastapi_keyauth.telemetry.observer import Observer

logger = logging.getLogger("fastapi_keyauth")

READ_TIMEOUT_S = 2.0
"""What a request waits for its row in all: for a connection, for the statement, for whatever hangs."""
COMMAND_TIMEOUT_S = 10.0
MAX_BACKGROUND_CONNECTIONS = 5
"""Connections that management and housekeeping have at most: the rest is for what requests read."""
CLOSE_TIMEOUT_S = 3.0
"""For what still writes to end at the stop."""
LEAVE_TIMEOUT_S = 1.0
"""For the idle connections to take leave. A server that has not answered by then gets a moment for each."""
_SETUP_LOCK = 0x6B657961757468  # "keyauth": PostgreSQL's advisory lock while tables are made
_PROBE = text(
    "SELECT 1 FROM keyauth_keys JOIN keyauth_secrets ON keyauth_secrets.key_id = keyauth_keys.id"
    " WHERE keyauth_keys.id = ''"
)
"""What requests read. A statement without tables would be answered also where these are locked."""

_OUTAGES: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)
_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)  # of ours: they must be seen
_REFUSALS = frozenset({"42501", "42P01", "42703"})
"""PostgreSQL's SQLSTATE of what somebody did to the database and no statement of ours: a right taken away, a table or a
column gone. SQLite says so by an ``OperationalError``. https://www.postgresql.org/docs/current/errcodes-appendix.html"""
try:
    import asyncpg
except ModuleNotFoundError:
    pass
else:
    # While connecting, asyncpg's own errors come through SQLAlchemy unwrapped.
    _OUTAGES += (asyncpg.PostgresError, asyncpg.InterfaceError)


class Database:
    """One SQLAlchemy engine. Use it from one event loop, between ``start`` and ``close``.

    Args:
        url: of the database.
        timeout_s: seconds for a statement, waiting for locks included.
        observer: told when the database is lost and when it is back.

    Attributes:
        tasks: what writes, and is not to be cut off.
    """

    def __init__(self, url: str, timeout_s: float = COMMAND_TIMEOUT_S, observer: Observer | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._engine: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._prober: Prober | None = None
        self._breaker = CircuitBreaker(self._probe, observer)
        self._create_limits()
        self.tasks = ShieldedTasks()

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite, which serialises writers itself."""
        return self._url.startswith("sqlite")

    async def start(self) -> None:
        """Connect, and make the tables where there are none.

        Raises:
            SetupError: the database does not answer, its tables are of an older version, or the driver is not
                installed.
        """
        async with self.opening():
            async with self.read() as connection:
                revision = await connection.run_sync(schema.find_revision)
            if revision is None:
                async with self.changing_tables() as connection:
                    revision = await connection.run_sync(schema.create)
            if revision in schema.REVISIONS[:-1]:
                raise SetupError(
                    f"The tables in {masked_url(self._url)} are of an older version (revision {revision}, wanted is"
                    f" {schema.NEWEST}): run `keyauth db upgrade`, or await auth.upgrade(), and start again."
                )
            if revision != schema.NEWEST:
                # A newer version only adds, so that servers can be replaced one by one.
                logger.warning(
                    "the tables are of a newer version (revision %s, known is %s)",
                    revision,
                    schema.NEWEST,
                    extra={"keyauth_event": "tables_newer"},
                )
            self._breaker.start()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Make an engine. Where the block fails it is closed, and what went wrong becomes a sentence.

        Raises:
            SetupError: the database does not answer or refuses, or the driver is not installed.
        """
        try:
            self._engine = create_engine(self._url, self._timeout_s)
            # One statement needs no transaction: on PostgreSQL this spares two trips, SQLite begins one anyway.
            level = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
            self._reader = self._engine.execution_options(**level)
            self._prober = create_prober(self._url, _PROBE)
            self._create_limits()
            if self.is_sqlite:
                await asyncio.to_thread(prepare_sqlite, self._engine)
            yield
        except BaseException as error:
            await self.close()
            sentence = _sentence(error, f"The database at {masked_url(self._url)}")
            if sentence is None:
                raise
            raise SetupError(sentence) from None

    def _create_limits(self) -> None:
        self._writer = asyncio.Lock()
        self._unhurried = asyncio.Semaphore(MAX_BACKGROUND_CONNECTIONS)
        # A thread of SQLite cannot be stopped, and with the connection a database in memory would go.
        self._readings = ReadQueue(MAX_CONNECTIONS - MAX_BACKGROUND_CONNECTIONS, ends_by_itself=self.is_sqlite)

    @asynccontextmanager
    async def changing_tables(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that no other process's of this kind runs beside."""
        async with self.write() as connection:
            if not self.is_sqlite:  # which has one writer anyway
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SETUP_LOCK})
            yield connection

    async def settle(self) -> None:
        """Wait for what is being written for requests that are gone."""
        await self.tasks.settle(CLOSE_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        await self.settle()
        await self._breaker.stop()
        await self._readings.close()
        engine, self._engine, self._reader, self._prober = self._engine, None, None, None
        if engine is not None:
            await _dispose(engine)

    async def fetch(self, statement: Executable, *, is_like_probe: bool = False) -> Sequence[Row[Any]]:
        """All rows of one statement that a request waits for, within ``READ_TIMEOUT_S``.

        Args:
            statement: what to read.
            is_like_probe: whether it reads the tables that the breaker asks for, so that an answer shows them to be in
                reach, however busy.

        Raises:
            StoreUnavailable: the database cannot answer, or did not in time.
        """
        self._breaker.check()
        try:
            return await self._readings.run(lambda: self._fetch(statement, is_like_probe), READ_TIMEOUT_S)
        except TimeoutError as error:
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    async def _fetch(self, statement: Executable, is_like_probe: bool) -> Sequence[Row[Any]]:
        async with self._connect(self._reader) as connection:
            rows = (await connection.execute(statement)).all()
        if is_like_probe:
            self._breaker.answered()
        return rows

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, where there is time.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        async with self._turn(self._unhurried), self._connect(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end, rolled back on any error.

        Raises:
            StoreUnavailable: the database cannot answer. Where it was asked to commit, it may have done so.
        """
        # SQLite has one writer. Those that wait for their turn wait here, so that readers find connections.
        gate = self._writer if self.is_sqlite else self._unhurried
        async with self._turn(gate), self._connect(self._engine, writes=True) as connection:
            yield connection

    @asynccontextmanager
    async def _turn(self, gate: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
        self._breaker.check()
        try:
            async with asyncio.timeout(POOL_TIMEOUT_S):
                await gate.acquire()
        except TimeoutError as error:
            self._breaker.report_failure(error)
            raise StoreUnavailable from error
        try:
            yield
        finally:
            gate.release()

    @asynccontextmanager
    async def _connect(self, engine: AsyncEngine | None, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        if engine is None:
            raise RuntimeError("KeyAuth is not started: run the app with its lifespan, or use `async with auth:`.")
        try:
            async with engine.connect() as connection:
                if writes:
                    await connection.execution_options(**{WRITES: True})
                async with connection.begin():
                    yield connection
        except _OUTAGES as error:
            if isinstance(error, _MISTAKES) and not _is_refusal(error):
                raise
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    async def _probe(self) -> None:
        if self._prober is not None:  # else the database lies in this process
            await self._prober()


async def _dispose(engine: AsyncEngine) -> None:
    """Close the idle connections; a PostgreSQL that hangs does not take leave, and must not hold up the stop."""
    if engine.dialect.name == "sqlite":
        await engine.dispose()
        return
    patience_s = LEAVE_TIMEOUT_S
    for _ in range(MAX_CONNECTIONS):
        try:
            async with asyncio.timeout(patience_s):
                await engine.dispose()  # one after the other; the one that is given up is closed all the same
                return
        except TimeoutError:
            patience_s = LEAVE_TIMEOUT_S / 10


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _REFUSALS


def _sentence(error: BaseException, where: str) -> str | None:
    """What went wrong at the start, for people; None for what is no fault of the database."""
    if isinstance(error, SetupError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        hint = ": install the extra 'postgres', or asyncpg itself" if error.name == "asyncpg" else ""
        return f"The database driver {error.name} is not installed{hint}."
    cause = error.__cause__
    if isinstance(error, StoreUnavailable) and cause is not None and _is_refusal(cause):
        error = cause
    if isinstance(error, StoreUnavailable | sqlite3.Error):
        return f"{where} does not answer ({describe(error.__cause__ or error).removesuffix('.')})."
    if isinstance(error, DBAPIError):  # such as a role that may not make tables
        return f"{where} refuses ({describe(error).removesuffix('.')})."
    if isinstance(error, TypeError | ValueError):
        return f"{where} cannot be used as told ({type(error).__name__})."
    return None
