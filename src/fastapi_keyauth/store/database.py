"""The database: connections, transactions, and one error for all outages."""

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
    is_out_of_slots,
    is_stale_statement,
)
from fastapi_keyauth.store.health import build_breaker
from fastapi_keyauth.store.pool import check_out, close_idle
from fastapi_keyauth.store.read_queue import ReadQueue
from fastapi_keyauth.store.sqlite_file import SqliteFile
from fastapi_keyauth.telemetry.observer import Observer

logger = logging.getLogger("fastapi_keyauth")

READ_TIMEOUT_S = 2.0
"""Seconds that a request waits for a row in total, for a connection and for the statement."""
COMMAND_TIMEOUT_S = 10.0
MAX_BACKGROUND_CONNECTIONS = 5
"""Maximum number of connections of management and housekeeping. The others serve the reads of requests."""
CLOSE_TIMEOUT_S = 3.0
"""Seconds that running writes have to complete when the app stops."""
_SETUP_LOCK = 0x6B657961757468  # "keyauth": PostgreSQL's advisory lock while tables are created
_PROBE = text(
    "SELECT 1 FROM keyauth_keys JOIN keyauth_secrets ON keyauth_secrets.key_id = keyauth_keys.id"
    " WHERE keyauth_keys.id = ''"
)
"""Reads what requests read. A statement without tables would be answered even if these are locked."""


class Database:
    """One SQLAlchemy engine. Use it from one event loop, between ``start`` and ``close``.

    Args:
        url: URL of the database.
        timeout_s: Seconds for a statement, waiting for locks included.
        observer: Notified when an outage begins and ends.
        event_loop: The event loop that calls must come from.

    Attributes:
        tasks: Writes, which complete even if their caller is cancelled.
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
        """Whether this is SQLite, which has one writer at a time."""
        return self._url.startswith("sqlite")

    async def start(self) -> None:
        """Connect, and create the tables if they do not exist.

        Raises:
            SetupError: If the database does not respond, its tables are of an older version, or the driver is not
                installed.
        """
        async with self.opening():
            async with self.read() as connection:
                revision = await connection.run_sync(schema.find_revision)
            if revision is None:
                async with self.changing_tables() as connection:
                    revision = await connection.run_sync(schema.create)
            schema.check_revision(revision, masked_url(self._url))
            self._breaker.start()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Create the engine. If the block fails, the engine is closed.

        Raises:
            SetupError: If the database does not respond or rejects the connection, or the driver is not installed.
        """
        try:
            has_pooler = await shares_connections(self._url)
            self._engine = create_engine(self._url, self._timeout_s, has_pooler=has_pooler)
            # One statement needs no transaction: on PostgreSQL this saves two round trips. SQLite begins one anyway.
            level = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
            self._reader = self._engine.execution_options(**level)
            self._prober = create_prober(self._url, _PROBE, has_pooler=has_pooler)
            self._create_limits()
            if self.is_sqlite:
                is_new = not self._file.exists()
                await asyncio.to_thread(prepare_sqlite, self._engine)
                self._file.record()
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
        self._background = asyncio.Semaphore(background)
        # A thread of SQLite cannot be stopped, and a database in memory would be lost with its connection.
        self._reads = ReadQueue(max(1, size - background), cancel_abandoned=not self.is_sqlite)

    @asynccontextmanager
    async def changing_tables(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that excludes other transactions of this kind, also in other processes."""
        async with self.write() as connection:
            if not self.is_sqlite:  # which has one writer anyway
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SETUP_LOCK})
            yield connection

    async def settle(self) -> None:
        """Wait for writes whose requests were cancelled."""
        await self.tasks.settle(CLOSE_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        await self.settle()
        await self._breaker.stop()
        await self._reads.close()
        engine, self._engine, self._reader, self._prober = self._engine, None, None, None
        if engine is not None:
            await close_idle(engine, max_connections(self._url))

    async def fetch(self, statement: Executable, *, is_like_probe: bool = False) -> Sequence[Row[Any]]:
        """Return all rows of one statement that a request waits for.

        Args:
            statement: The statement.
            is_like_probe: Whether it reads the tables of the breaker's probe, so that its answer shows that they are
                available, however busy.

        Raises:
            StoreUnavailable: If the database does not respond within ``READ_TIMEOUT_S``.
        """
        self._check()
        try:
            return await self._reads.run(lambda: self._fetch(statement, is_like_probe), READ_TIMEOUT_S)
        except TimeoutError as error:
            self._breaker.report_failure(error)
            raise StoreUnavailable from error

    def _recovered(self) -> None:
        self.on_recovery()  # read now: it may have been replaced

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
        """Open a connection for reads that may take longer than those of requests.

        Raises:
            StoreUnavailable: If the database does not respond.
        """
        async with self._turn(POOL_TIMEOUT_S, self._background), self._connect(self._engine) as connection:
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
        turn = self._turn(POOL_TIMEOUT_S, self._background)
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
                self._file.record()
                await engine.dispose()  # its connections have the old file open
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
        if self._prober is None:  # the database is in the memory of this process
            return
        try:
            self._file.is_replaced()  # opening a missing file would create it
            await self._prober()
        except OUTAGES as error:
            if not is_out_of_slots(error):  # the server responds, and the connections of the pool work
                raise
