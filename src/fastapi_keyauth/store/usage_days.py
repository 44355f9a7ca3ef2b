"""Closing of days: the hours of a day become rows that never change."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, literal, or_, select, update

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.usage import HOURS_OF_DAY, UsageBatch, UsageBatchItem, UsageOf, date_of
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product, keys
from fastapi_keyauth.store.tables import UsageDayRow, table
from fastapi_keyauth.store.usage_hours import carry_over, closings, hours, is_hour_of, lock_days, total

logger = logging.getLogger("fastapi_keyauth")

days = table(UsageDayRow)


class OpenDays(NamedTuple):
    """Which days of a product are open, in days since 1970.

    Attributes:
        since: The first day on which usage was counted.
        open_day: The first day that is not closed. Days before are closed.
    """

    since: int
    open_day: int


class UsageDayStore:
    """Closes days, and reads closed ones.

    Args:
        database: The database.
        prefix: The product's key prefix. Each product closes its own days.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self.tasks = database.tasks
        self._prefix = prefix
        self._is_ours: ColumnElement[bool] = closings.c.prefix == prefix

    async def find_open(self) -> OpenDays | None:
        """Return which days are open. None if nothing was ever counted."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(closings.c.since, closings.c.open_day).where(self._is_ours))).first()
            return None if row is None else OpenDays(*row)

    @uncancellable
    async def lease(self, open_day: int, now: datetime, until: datetime, held_until: datetime | None = None) -> bool:
        """Take or renew the lease for preparing the next closing.

        A lease only saves work: preparing and closing a day twice changes nothing.

        Args:
            open_day: The day that is to be closed next.
            now: The time, UTC.
            until: When the lease ends if it is not renewed.
            held_until: The end of the lease that the caller has.

        Returns:
            Whether the caller has the lease. False: another worker prepares the closing, or the day is closed.
        """
        # A lease that ends much later was written by a clock that was ahead.
        is_free = or_(
            closings.c.leased_until.is_(None),
            closings.c.leased_until <= now,
            closings.c.leased_until > until + 2 * (until - now) + timedelta(minutes=1),
        )
        if held_until is not None:
            is_free = or_(is_free, closings.c.leased_until == held_until)
        statement = update(closings).where(self._is_ours, closings.c.open_day == open_day, is_free)
        async with self._database.write() as connection:
            return (await connection.execute(statement.values(leased_until=until))).rowcount == 1

    async def find_keys(self, after: str, limit: int, owner_id: str | None = None) -> Sequence[UsageOf]:
        """Return the next keys of the product, or of one owner, in the order of their ids, revoked ones included."""
        statement = select(keys.c.id, keys.c.owner_id).where(keys.c.id > after, is_of_product(keys, self._prefix))
        if owner_id is not None:
            statement = statement.where(keys.c.owner_id == owner_id)
        statement = statement.order_by(keys.c.id).limit(limit)
        async with self._database.read() as connection:
            return [UsageOf(*row) for row in await connection.execute(statement)]

    @uncancellable
    async def close_day(self, day: int) -> bool:
        """Close a day in one transaction, unless another worker has closed it.

        Args:
            day: Days since 1970. It must be the first open one.

        Returns:
            Whether this call closed it.
        """
        first_hour = day * HOURS_OF_DAY
        group = (keys.c.owner_id, hours.c.key_id, hours.c.unit)
        sums = (
            select(literal(self._prefix), literal(day), *group, total(hours.c.units), total(hours.c.refused))
            .select_from(hours.join(keys, keys.c.id == hours.c.key_id))
            .where(is_hour_of(self._prefix), hours.c.hour >= first_hour, hours.c.hour < first_hour + HOURS_OF_DAY)
            .group_by(*group)
            .order_by(*group)
        )
        names = ["prefix", "day", "owner_id", "key_id", "unit", "units", "refused"]
        moved = update(closings).where(self._is_ours, closings.c.open_day == day)
        async with self._database.write() as connection:
            await lock_days(connection, self._prefix, shared=False)
            if (await connection.execute(moved.values(open_day=day + 1))).rowcount == 0:
                return False
            await carry_over(connection, self._database, first_hour)
            written = await connection.execute(days.insert().from_select(names, sums))
        logger.info(
            "usage of %s closed: rows=%d",
            date_of(day),
            written.rowcount,
            extra={"keyauth_event": "usage_closed"},
        )
        return True

    async def find_batch(self, after: int, limit: int) -> UsageBatch:
        """Return the next items of closed days, without those that have no units.

        Args:
            after: The id before the first one.
            limit: Maximum number of items.
        """
        columns = (days.c.id, days.c.day, days.c.owner_id, days.c.key_id, days.c.unit, days.c.units)
        statement = (
            select(*columns)
            .where(days.c.id > after, days.c.prefix == self._prefix, days.c.units > 0)
            .order_by(days.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        items = [UsageBatchItem(row.id, date_of(row.day), *row[2:]) for row in rows]
        return UsageBatch(items, items[-1].id if items else None)
