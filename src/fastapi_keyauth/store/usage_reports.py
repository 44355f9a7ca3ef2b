"""Sums of usage over ranges of days: closed days from their rows, open ones from their hours."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, select, union_all

from fastapi_keyauth.domain.usage import HOURS_OF_DAY, DayRange
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product, keys
from fastapi_keyauth.store.usage_days import days
from fastapi_keyauth.store.usage_hours import hours, is_hour_of, total

Group = Literal["day", "key_id", "unit"]


class UsageReportStore:
    """Sums up usage. Each call is one statement over a bounded range.

    Args:
        database: The database.
        prefix: The product's key prefix.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._prefix = prefix

    async def sum_up(
        self,
        group: Group,
        range_: DayRange,
        open_day: int,
        owner_ids: Collection[str] | None = None,
        key_ids: Sequence[str] | None = None,
    ) -> list[tuple[Any, str, int, int]]:
        """Return (group, unit, units, refused), in the order of group and unit.

        Args:
            group: The column to sum up by.
            range_: The days.
            open_day: The first open day, as it was when the report began. A day that is closed meanwhile keeps its
                hours, so the parts of a report fit together.
            owner_ids: Only keys of these owners. None: of all.
            key_ids: Only these keys. None: all.
        """
        parts = []
        if range_.first < open_day:
            parts.append(self._closed(DayRange(range_.first, min(range_.end, open_day)), owner_ids, key_ids))
        if open_day < range_.end:
            parts.append(self._open(DayRange(max(range_.first, open_day), range_.end), owner_ids, key_ids))
        usage = union_all(*parts).subquery()
        names = (usage.c.unit,) if group == "unit" else (usage.c[group], usage.c.unit)
        statement = select(usage.c[group], usage.c.unit, total(usage.c.units), total(usage.c.refused))
        async with self._database.read() as connection:
            rows = await connection.execute(statement.group_by(*names).order_by(*names))
            return [tuple(row) for row in rows]

    def _closed(
        self, range_: DayRange, owner_ids: Collection[str] | None, key_ids: Sequence[str] | None
    ) -> Select[Any]:
        found = select(days.c.day, days.c.key_id, days.c.unit, days.c.units, days.c.refused).where(
            days.c.prefix == self._prefix, days.c.day >= range_.first, days.c.day < range_.end
        )
        if owner_ids is not None:
            found = found.where(days.c.owner_id.in_(owner_ids))
        return found if key_ids is None else found.where(days.c.key_id.in_(key_ids))

    def _open(self, range_: DayRange, owner_ids: Collection[str] | None, key_ids: Sequence[str] | None) -> Select[Any]:
        day: ColumnElement[int] = (hours.c.hour // HOURS_OF_DAY).label("day")
        found = select(day, hours.c.key_id, hours.c.unit, hours.c.units, hours.c.refused).where(
            is_hour_of(self._prefix),
            hours.c.hour >= range_.first * HOURS_OF_DAY,
            hours.c.hour < range_.end * HOURS_OF_DAY,
        )
        if owner_ids is not None:
            theirs = select(keys.c.id).where(keys.c.owner_id.in_(owner_ids), is_of_product(keys, self._prefix))
            found = found.where(hours.c.key_id.in_(theirs))
        return found if key_ids is None else found.where(hours.c.key_id.in_(key_ids))

    async def find_keys(self, after: str, limit: int, owner_ids: Collection[str] | None) -> Sequence[str]:
        """Return the ids of the next keys, in order."""
        statement = select(keys.c.id).where(keys.c.id > after, is_of_product(keys, self._prefix))
        if owner_ids is not None:
            statement = statement.where(keys.c.owner_id.in_(owner_ids))
        async with self._database.read() as connection:
            return (await connection.execute(statement.order_by(keys.c.id).limit(limit))).scalars().all()
