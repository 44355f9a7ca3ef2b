"""Upgrades of the tables to the newest revision."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.store import schema
from fastapi_keyauth.store.database import Database

UPGRADE_TIMEOUT_S = 3600.0
"""Seconds for one statement, which may build an index on a large table or wait for another upgrade."""
TABLE_LOCK_TIMEOUT_S = 5
"""Seconds to wait for a table that others use (PostgreSQL). Later statements wait behind the upgrade, so this is how
long a service may be held up. After that the upgrade gives up and changes nothing."""
_POLL_S = 0.02

OnStep = Callable[[str, str], None]
"""Called with the name and the description of each revision that is applied."""

# Alembic keeps its working state in variables of its modules, for the whole process.
_one_at_a_time = threading.Lock()


async def upgrade(url: str, on_step: OnStep | None = None) -> list[str]:
    """Upgrade the tables to the newest revision in one transaction. Concurrent processes take turns.

    Args:
        url: URL of the database.
        on_step: Called for each revision.

    Returns:
        The revisions that were applied, oldest first; empty if the tables had the newest one already.

    Raises:
        SetupError: If the database does not respond or rejects the upgrade, its tables are in use for too long, or they
            are newer than this version supports.
    """
    database = Database(url, UPGRADE_TIMEOUT_S)
    async with database.opening(), _alone(), database.changing_tables() as connection:
        if not database.is_sqlite:
            # Not before the advisory lock, whose holder may take longer.
            await connection.execute(text(f"SET LOCAL lock_timeout = '{TABLE_LOCK_TIMEOUT_S}s'"))
        applied = await connection.run_sync(_run, on_step)
    await database.close()
    return applied


async def find_revision(url: str) -> str | None:
    """Return the revision of the tables of a database; None if they do not exist.

    Raises:
        SetupError: If the database does not respond.
    """
    if not has_been_made(url):
        return None
    database = Database(url)
    async with database.opening(), database.read() as connection:
        revision = await connection.run_sync(schema.find_revision)
    await database.close()
    return revision


def has_been_made(url: str) -> bool:
    """Return whether the database exists, without creating a missing SQLite file by opening it."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return True
    file = Path(parsed.database)
    # If the folder does not exist either, opening the file says so.
    return parsed.database.startswith("file:") or file.exists() or not file.parent.exists()


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    # An asyncio.Lock belongs to one event loop, this lock to all threads.
    while not _one_at_a_time.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    try:
        yield
    finally:
        _one_at_a_time.release()


def _run(connection: Connection, on_step: OnStep | None) -> list[str]:
    revision = schema.find_revision(connection)
    if revision is not None and revision not in schema.REVISIONS:
        raise SetupError(
            f"The tables are of a newer version (revision {revision}) than this one, which knows {schema.NEWEST}."
        )
    if revision == schema.FIRST:
        schema.mark(connection, revision)  # they may be older than the version table
    applied: list[str] = []

    def on_version_apply(*, step: Any, **_: Any) -> None:
        applied.append(step.up_revision_id)
        if on_step is not None:
            on_step(step.up_revision_id, step.up_revision.doc)

    config = Config(attributes={"connection": connection, "on_version_apply": on_version_apply})
    config.set_main_option("script_location", "fastapi_keyauth:store/migrations")
    command.upgrade(config, "head")
    return applied
