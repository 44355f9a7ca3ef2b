"""The engine: connections, transactions, and one error for every way in which a database does not answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import Executable, Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.concurrency.uncancellable import ShieldedTasks
from fastapi_keyauth.errors import InvalidField, SetupError, StoreUnavailable
from fastapi_keyauth.settings.urls import masked_url
from fastapi_keyauth.store import schema
from fastapi_keyauth.store.engine import (
    POOL_TIMEOUT_S,
    WRITES,
    Prober,
    create_engine,
    create_prober,
    max_connections,
    prepare_sqlite,
    shares_connections,
)
from fastapi_keyauth.store.failures import (
    OUTAGES,
    explain,
    is_mistake,
    is_not_storable,
    is_slots_full,
    is_stale_statement,
)
from fastapi_keyauth.store.health import build_breaker
from fastapi_keyauth.store.pool import check_out, close_idle
from fastapi_keyauth.store.read_queue import ReadQueue
from fastapi_keyauth.store.sqlite_file import SqliteFile
from fastapi_keyauth.telemetry.observer import Observer

logger = logging.getLogger("fastapi_keyauth")

READ_TIMEOUT_S = 2.0
"""What a request waits for its row in all: for a connection, for the statement, for whatever hangs."""
COMMAND_TIMEOUT_S = 10.0
MAX_BACKGROUND_CONNECTIONS = 5
"""Connections that management and housekeeping have at most: the rest is for what requests read."""
CLOSE_TIMEOUT_S = 3.0
"""For what still writes to end at the stop."""
_SETUP_LOCK = 0x6B657961757468  # "keyauth": PostgreSQL's advisory lock while tables are made
_PROBE = text(
    "SELECT 1 FROM keyauth_keys JOIN keyauth_secrets ON keyauth_secrets.key_id = keyauth_keys.id"
    " WHERE keyauth_keys.id = ''"
)
"""What requests read. A statement without tables would be answered also where these are locked."""


class Database:
    """One SQLAlchemy engine. Use it from one event loop, between ``start`` and ``close``.

    Args:
        url: of the database.
        timeout_s: seconds for a statement, waiting for locks included.
        observer: told when the database is lost and when it is back.
        event_loop: The event loop that calls must come from.

    Attributes:
        tasks: what writes, and is not to be cut off.
        on_recovery: Called when an outage ends, before the next statement.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = COMMAND_TIMEOUT_S,
        observer: Observer | None = None,
        event_loop: EventLoopBinding | None = None,
    ) -> None:
        self._url = url
        self._event_loop = EventLoopBinding() if event_loop is None else event_loop
        self._timeout_s = timeout_s
        self._file = SqliteFile(url)
        self._engine: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._prober: Prober | None = None
        self._breaker = build_breaker(self._probe, observer, self._recovered)
        self.on_recovery: Callable[[], None] = lambda: None
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
            has_pooler = await shares_connections(self._url)
            self._engine = create_engine(self._url, self._timeout_s, has_pooler=has_pooler)
            # One statement needs no transaction: on PostgreSQL this spares two trips, SQLite begins one anyway.
            level = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
            self._reader = self._engine.execution_options(**level)
            self._prober = create_prober(self._url, _PROBE, has_pooler=has_pooler)
            self._create_limits()
            if self.is_sqlite:
                is_new = not self._file.exists()
                await asyncio.to_thread(prepare_sqlite, self._engine)
                self._file.remember()
                if is_new:
                    logger.warning(
                        "created a new database file at %s",
                        masked_url(self._url),
                        extra={"keyauth_event": "file_created"},
                    )
            yield
        except BaseException as error:
            await self.close()
            sentence = explain(error, f"The database at {masked_url(self._url)}")
            if sentence is None:
                raise
            raise SetupError(sentence) from None

    def _create_limits(self) -> None:
        self._writer = asyncio.Lock()
        self._ordinary_writer = asyncio.Lock()
        size = max_connections(self._url)
        background = max(1, min(MAX_BACKGROUND_CONNECTIONS, size // 3))
        self._unhurried = asyncio.Semaphore(background)
        # A thread of SQLite cannot be stopped, and with the connection a database in memory would go.
        self._readings = ReadQueue(max(1, size - background), ends_by_itself=self.is_sqlite)

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
            await close_idle(engine, max_connections(self._url))

    async def fetch(self, statement: Executable, *, is_like_probe: bool = False) -> Sequence[Row[Any]]:
        """All rows of one statement that a request waits for, within ``READ_TIMEOUT_S``.

        Args:
            statement: what to read.
            is_like_probe: whether it reads the tables that the breaker asks for, so that an answer shows them to be in
                reach, however busy.

        Raises:
            StoreUnavailable: the database cannot answer, or did not in time.
        """
        self._check()
        try:
            return await self._readings.run(lambda: self._fetch(statement, is_like_probe), READ_TIMEOUT_S)
        except TimeoutError as error:
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    def _recovered(self) -> None:
        self.on_recovery()  # whichever it is by then

    def _check(self) -> None:
        self._event_loop.check()
        if self._breaker.is_open:
            raise StoreUnavailable

    async def _fetch(self, statement: Executable, is_like_probe: bool) -> Sequence[Row[Any]]:
        try:
            rows = await self._execute(statement)
        except StoreUnavailable as error:
            if not is_stale_statement(error.__cause__):
                raise
            rows = await self._execute(statement)
        if is_like_probe:
            self._breaker.report_success()
        return rows

    async def _execute(self, statement: Executable) -> Sequence[Row[Any]]:
        async with self._connect(self._reader) as connection:
            return (await connection.execute(statement)).all()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, where there is time.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        async with self._turn(POOL_TIMEOUT_S, self._unhurried), self._connect(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, *, is_urgent: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a transaction, which is committed at the end and rolled back on any error.

        Args:
            is_urgent: Whether it passes the changes that wait for the one writer of SQLite, as revocations do.

        Raises:
            StoreUnavailable: If the database does not respond. A transaction whose commit was sent may be committed.
        """
        # Transactions wait here for SQLite's writer rather than with a connection, so that readers find one. They wait
        # as long as for the lock: one behind another that waits for a different process must not be refused earlier.
        turn = self._turn(POOL_TIMEOUT_S, self._unhurried)
        if self.is_sqlite:
            # Of the ordinary ones only the first waits for the writer, so that an urgent one passes the others.
            gates = (self._writer,) if is_urgent else (self._ordinary_writer, self._writer)
            turn = self._turn(self._timeout_s, *gates)
        async with turn, self._connect(self._engine, writes=True) as connection:
            yield connection
        try:
            self._file.is_replaced()  # a commit to a deleted file is lost
        except FileNotFoundError as error:
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    @asynccontextmanager
    async def _turn(self, patience_s: float, *gates: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
        self._check()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(patience_s):
                    for gate in gates:
                        await held.enter_async_context(gate)
            except TimeoutError as error:
                self._breaker.report_failure(error)
                raise StoreUnavailable from error
            yield

    @asynccontextmanager
    async def _connect(self, engine: AsyncEngine | None, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        if engine is None:
            raise RuntimeError("KeyAuth is not started: run the app with its lifespan, or use `async with auth:`.")
        try:
            if self._file.is_replaced():
                self._file.remember()
                await engine.dispose()  # its connections have the file of before open
            async with check_out(engine) as connection:
                if writes:
                    await connection.execution_options(**{WRITES: True})
                async with connection.begin():
                    yield connection
        except OUTAGES as error:
            if is_not_storable(error):
                raise InvalidField("body", "has a character that the encoding of the database does not have") from None
            if is_mistake(error):
                raise
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    async def _probe(self) -> None:
        if self._prober is None:  # the database lies in this process
            return
        try:
            self._file.is_replaced()  # to open a file that is missing would create it
            await self._prober()
        except OUTAGES as error:
            if not is_slots_full(error):  # it answers, and the connections of the pool work
                raise
