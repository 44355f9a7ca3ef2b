"""The hours of usage: their table, conditions, and the lock that keeps a day open while usage is written."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import HOURS_OF_DAY
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import keys
from fastapi_keyauth.store.tables import UsageClosingRow, UsageHourRow, UsageRow, table
from fastapi_keyauth.store.upserts import insert_into

hours = table(UsageHourRow)
closings = table(UsageClosingRow)
_old_hours = table(UsageRow)

_OLD = "v0.1"
"""Source of units that workers of version 0.1 counted."""
_LOCK_SEED = 2
"""Keeps the lock of days apart from the locks of owners."""


def is_hour_of(prefix: str) -> ColumnElement[bool]:
    """Return the condition that a row of hours belongs to a product."""
    return hours.c.prefix.in_((prefix, ""))


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """Return a sum as a whole number; PostgreSQL returns a decimal."""
    return cast(func.sum(column), BigInteger)


async def lock_days(connection: AsyncConnection, prefix: str, *, shared: bool) -> None:
    """Keep days from being closed until the transaction ends, or, if not shared, keep usage from being written."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
        name = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        lock = text(f"SELECT {name}(hashtextextended(:prefix, {_LOCK_SEED}))")
        await connection.execute(lock, {"prefix": prefix})


async def read_open_hour(connection: AsyncConnection, prefix: str) -> int | None:
    """Return the first hour, since 1970, whose day is open. None if nothing was counted yet.

    The day stays open until the transaction ends.
    """
    await lock_days(connection, prefix, shared=True)
    found = (await connection.execute(select(closings.c.open_day).where(closings.c.prefix == prefix))).first()
    return None if found is None else int(found.open_day) * HOURS_OF_DAY


async def carry_over(connection: AsyncConnection, database: Database, open_hour: int) -> None:
    """Copy the hours that workers of version 0.1 counted, which still run during a rolling upgrade.

    Args:
        connection: A transaction.
        database: Its database.
        open_hour: Earlier hours stay unchanged.
    """
    found: Select[Any] = (
        select(
            _old_hours.c.key_id,
            _old_hours.c.hour,
            literal(REQUESTS),
            func.coalesce(keys.c.prefix, ""),
            literal(_OLD),
            _old_hours.c.admitted,
            _old_hours.c.refused,
        )
        .select_from(_old_hours.join(keys, keys.c.id == _old_hours.c.key_id))
        .where(_old_hours.c.hour >= open_hour)
    )
    names = ["key_id", "hour", "unit", "prefix", "source", "units", "refused"]
    statement = insert_into(hours, database).from_select(names, found)
    excluded = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(hours.primary_key),
            set_={"units": excluded.units, "refused": excluded.refused},
            where=or_(hours.c.units < excluded.units, hours.c.refused < excluded.refused),
        )
    )
