"""The engine: connections, transactions, and one error for every way in which a database does not answer."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from fastapi_keyauth.errors import SetupError, StoreUnavailable
from fastapi_keyauth.settings import masked_url
from fastapi_keyauth.store import schema

logger = logging.getLogger("fastapi_keyauth")

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 10.0
POOL_TIMEOUT_S = 2.0
LOG_EVERY_S = 5.0
_SETUP_LOCK = 0x6B657961757468  # "keyauth": PostgreSQL's advisory lock while tables are made
_WRITES = "keyauth_writes"

_OUTAGES: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)
_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)  # of ours: they must be seen
try:
    import asyncpg
except ModuleNotFoundError:
    pass
else:
    # While connecting, asyncpg's own errors come through SQLAlchemy unwrapped.
    _OUTAGES += (asyncpg.PostgresError, asyncpg.InterfaceError)


class Database:
    """One SQLAlchemy engine. Use it from one event loop, between :meth:`start` and :meth:`close`.

    Args:
        url: of the database.
        timeout_s: seconds for a statement, waiting for locks included.
    """

    def __init__(self, url: str, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._engine: AsyncEngine | None = None
        self._writer = asyncio.Lock()
        self._logged_at = -LOG_EVERY_S
        self._unlogged = 0

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

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Make an engine. Where the block fails it is closed, and what went wrong becomes a sentence.

        Raises:
            SetupError: the database does not answer or refuses, or the driver is not installed.
        """
        try:
            self._engine = _create_engine(self._url, self._timeout_s)
            self._writer = asyncio.Lock()
            if self.is_sqlite:
                await asyncio.to_thread(_probe_sqlite, self._engine)
            yield
        except BaseException as error:
            await self.close()
            sentence = _sentence(error, f"The database at {masked_url(self._url)}")
            if sentence is None:
                raise
            raise SetupError(sentence) from None

    @asynccontextmanager
    async def changing_tables(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that no other process's of this kind runs beside."""
        async with self.write() as connection:
            if not self.is_sqlite:  # which has one writer anyway
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SETUP_LOCK})
            yield connection

    async def close(self) -> None:
        """Close every connection."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        async with self._connect(writes=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end, rolled back on any error.

        Raises:
            StoreUnavailable: the database cannot answer, or the commit did not go through.
        """
        if not self.is_sqlite:
            async with self._connect(writes=True) as connection:
                yield connection
            return
        # SQLite has one writer. Those that wait for their turn wait here, so that readers find connections.
        try:
            async with asyncio.timeout(POOL_TIMEOUT_S):
                await self._writer.acquire()
        except TimeoutError as error:
            self._log_outage(error)
            raise StoreUnavailable from error
        try:
            async with self._connect(writes=True) as connection:
                yield connection
        finally:
            self._writer.release()

    @asynccontextmanager
    async def _connect(self, writes: bool) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise RuntimeError("KeyAuth is not started: run the app with its lifespan, or use `async with auth:`.")
        try:
            async with self._engine.connect() as connection:
                if writes:
                    await connection.execution_options(**{_WRITES: True})
                async with connection.begin():
                    yield connection
        except _MISTAKES:
            raise
        except _OUTAGES as error:
            self._log_outage(error)
            raise StoreUnavailable from error

    def _log_outage(self, error: Exception) -> None:
        """One line every few seconds, however many requests fail."""
        now = time.monotonic()
        if now - self._logged_at < LOG_EVERY_S:
            self._unlogged += 1
            return
        reason = _describe(error)
        logger.warning(
            "database unavailable: %s (%d more since the last line)",
            reason,
            self._unlogged,
            extra={"keyauth_event": "outage", "part": "database", "reason": reason},
        )
        self._logged_at = now
        self._unlogged = 0


def _create_engine(url: str, timeout_s: float) -> AsyncEngine:
    parsed = make_url(url)
    # Parameters of statements (hashes, names) stay out of error messages and logs.
    options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": POOL_TIMEOUT_S}
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": timeout_s}
        if parsed.database in (None, "", ":memory:"):
            # A database in memory lives as long as its one connection, which transactions must not share.
            options |= {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
        engine = create_async_engine(parsed, **options)
        _configure_sqlite(engine)
        return engine
    options["connect_args"] = {"timeout": CONNECT_TIMEOUT_S, "command_timeout": timeout_s}
    return create_async_engine(parsed, pool_pre_ping=True, **options)


def _probe_sqlite(engine: AsyncEngine) -> None:
    """Open the file once, plainly: where that fails, aiosqlite's thread outlives the event loop and complains."""
    arguments: tuple[Any, Any] = engine.dialect.create_connect_args(engine.url)
    args, options = arguments
    sqlite3.connect(*args, **options).close()


def _configure_sqlite(engine: AsyncEngine) -> None:
    """Readers beside one writer (WAL), and writers that take their turn instead of failing half way."""

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below, not guessed by the driver
        # SQLite's own knows ASCII alone.
        connection.create_function("lower", 1, lambda text: text.lower() if isinstance(text, str) else text)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a key answered with 201 survives a power cut
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes would else fail when another one wrote in between.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sentence(error: BaseException, where: str) -> str | None:
    """What went wrong at the start, for people; None for what is no fault of the database."""
    if isinstance(error, SetupError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        hint = ": install the extra 'postgres', or asyncpg itself" if error.name == "asyncpg" else ""
        return f"The database driver {error.name} is not installed{hint}."
    if isinstance(error, StoreUnavailable | sqlite3.Error):
        return f"{where} does not answer ({_describe(error.__cause__ or error).removesuffix('.')})."
    if isinstance(error, DBAPIError):  # such as a role that may not make tables
        return f"{where} refuses ({_describe(error).removesuffix('.')})."
    if isinstance(error, TypeError | ValueError):
        return f"{where} cannot be used as told ({type(error).__name__})."
    return None


def _describe(error: BaseException) -> str:
    """Type and first line of the root of an error; parameters are hidden by the engine."""
    root = getattr(error, "orig", None) or error
    lines = str(root).splitlines()
    return f"{type(root).__name__}: {lines[0] if lines else 'no answer in time'}"
