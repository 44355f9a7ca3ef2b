"""Deletion of rows that no call can return any more: expired sessions and old usage, never history."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, select, tuple_

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.tables import SessionRow, UsageRow, WriterRow, table
from fastapi_keyauth.store.usage_hours import hours, is_hour_of, read_open_hour

_sessions = table(SessionRow)
_old_hours = table(UsageRow)
_writers = table(WriterRow)

BATCH = 2000
"""Rows of each table in one transaction, which is short enough not to delay other writers of SQLite."""
_LOCK = 0x7072756E65  # "prune": PostgreSQL's advisory lock of the process that deletes


class PruneStore:
    """Deletes rows in batches, which are found by an index.

    Args:
        database: The database.
        prefix: The product's key prefix, whose hours are deleted.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._prefix = prefix
        self.tasks = database.tasks

    @uncancellable
    async def prune(self, over_before: datetime, usage_before_hour: int) -> bool:
        """Delete one batch of each table; on PostgreSQL only if no other process is deleting.

        Args:
            over_before: Sessions that expired before are deleted, and processes that have written nothing since.
            usage_before_hour: Usage of earlier hours is deleted if their day is closed. Hours since 1970.

        Returns:
            Whether more rows may be left.
        """
        async with self._database.write() as connection:
            if not self._database.is_sqlite:
                alone = select(func.pg_try_advisory_xact_lock(_LOCK))
                if not (await connection.execute(alone)).scalar_one():
                    return False
            closed = min(usage_before_hour, await read_open_hour(connection, self._prefix) or 0)
            due = (
                (_sessions, _sessions.c.expires_at < over_before),
                (hours, is_hour_of(self._prefix) & (hours.c.hour < closed)),
                (_old_hours, _old_hours.c.hour < closed),
                (_writers, _writers.c.at < over_before),
            )
            counts = [(await connection.execute(_delete_some(*one))).rowcount for one in due]
        return max(counts) >= BATCH


def _delete_some(target: Table, condition: ColumnElement[bool]) -> Any:
    name = tuple_(*target.primary_key.columns)
    return delete(target).where(name.in_(select(*target.primary_key.columns).where(condition).limit(BATCH)))
