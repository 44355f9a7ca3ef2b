"""Usage by key, hour and unit, and last-used times, written in batches that name their columns.

An hour of a key and unit has one row for each place that counted it, its *source*. Two kinds of writes exist:

- **Counts** come from Redis, which keeps them. A row is set to the count if that is larger, so a write may be repeated
  and workers may write the same row. The source names the memory in which the units were counted.
- **Additions** come from the memory of a process. They are added once, under the name of their batch.

A closed day never changes. Units that arrive later for one of its hours are written to that hour, for reports by the
hour. They are also added to the current hour under the source ``late``, so that a day that is still open includes them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import HOURS_OF_DAY, UsageCount, UsageSum, hour_of
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product, keys, secrets
from fastapi_keyauth.store.tables import WriterRow, table
from fastapi_keyauth.store.upserts import insert_into
from fastapi_keyauth.store.usage_hours import closings, hours, is_hour_of, read_open_hour, total

_writers = table(WriterRow)

IN_PROCESS = ""
"""Source of units that a process counted in its memory, and of refused requests."""
LATE = "late"
"""Source of units of an earlier hour whose day was already closed."""


@dataclass(slots=True)
class Usage:
    """Usage since the last write: additions, and times by key and by secret."""

    units: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """(key id, hours since 1970, unit) -> units to add."""
    refused: dict[tuple[str, int], int] = field(default_factory=dict)
    """(key id, hours since 1970) -> refused requests to add."""
    keys_used: dict[str, datetime] = field(default_factory=dict)
    secrets_used: dict[int, datetime] = field(default_factory=dict)


class UsageStore:
    """Writes usage, moves last-used times forward but never back, and returns usage by the hour.

    Args:
        database: The database.
        prefix: The product's key prefix; usage of other products is not found.
        hours_kept: The setting ``usage_hours_kept``.
    """

    def __init__(self, database: Database, prefix: str, hours_kept: int) -> None:
        self._database = database
        self._prefix = prefix
        self._hours_kept = hours_kept
        self._is_our_key = is_of_product(keys, prefix)
        self._is_ours = is_hour_of(prefix)

    async def write(self, usage: Usage, counts: Iterable[UsageCount], writer: str, batch: int, now: datetime) -> int:
        """Write a batch of additions and any counts in one transaction. A batch that was written before is ignored.

        A batch whose commit succeeded, but whose response was lost, may therefore be sent again. Rows are written in
        the order of their keys, so that workers do not deadlock.

        Args:
            usage: The usage to add.
            counts: Counts of a limiter.
            writer: The process that counted the additions.
            batch: A number that grows from batch to batch of this writer.
            now: The time, UTC.

        Returns:
            The first hour since 1970 whose day is not closed.
        """
        counts = _largest(counts)
        found = [hour for _, hour, _ in usage.units] + [hour for _, hour in usage.refused]
        async with self._database.write() as connection:
            open_hour = await self._find_open_hour(connection, [*found, *(count.hour for count in counts)])
            current = max(hour_of(now), open_hour)
            if (await connection.execute(self._claim_batch(writer, batch, now))).rowcount:
                await self._add(connection, usage, open_hour, current)
                await _move_times(connection, usage)
            await self._set(connection, counts, open_hour, current)
        return open_hour

    async def set_counts(self, counts: Iterable[UsageCount], now: datetime) -> None:
        """Write counts of a limiter."""
        counts = _largest(counts)
        async with self._database.write() as connection:
            open_hour = await self._find_open_hour(connection, [count.hour for count in counts])
            await self._set(connection, counts, open_hour, max(hour_of(now), open_hour))

    async def _find_open_hour(self, connection: AsyncConnection, new: list[int]) -> int:
        """Return the first hour whose day is not closed. The first hours of a product begin its days."""
        open_hour = await read_open_hour(connection, self._prefix)
        if open_hour is not None or not new:
            return open_hour or 0
        first_hour = await connection.execute(select(func.min(hours.c.hour)).where(self._is_ours))
        known = first_hour.scalar()
        day = min(new if known is None else [*new, known]) // HOURS_OF_DAY
        row = insert_into(closings, self._database).values(prefix=self._prefix, since=day, open_day=day)
        await connection.execute(row.on_conflict_do_nothing())
        return await read_open_hour(connection, self._prefix) or 0

    async def _add(self, connection: AsyncConnection, usage: Usage, open_hour: int, current: int) -> None:
        names = usage.units.keys() | {(key_id, hour, REQUESTS) for key_id, hour in usage.refused}
        rows = []
        late: dict[tuple[str, str], list[int]] = {}
        for key_id, hour, unit in sorted(names):
            units = usage.units.get((key_id, hour, unit), 0)
            refused = usage.refused.get((key_id, hour), 0) if unit == REQUESTS else 0
            rows.append(self._row(key_id, hour, unit, IN_PROCESS, units, refused))
            if hour < open_hour:
                sums = late.setdefault((key_id, unit), [0, 0])
                sums[0] += units
                sums[1] += refused
        await self._add_rows(connection, rows)
        await self._add_late(connection, late, current)

    async def _set(
        self, connection: AsyncConnection, counts: Sequence[UsageCount], open_hour: int, current: int
    ) -> None:
        rows = []
        late: dict[tuple[str, str], list[int]] = {}
        for count in counts:
            if count.hour < open_hour:
                if count.hour <= current - self._hours_kept:
                    continue  # its row may be deleted; it was written before its day was closed
                more = count.units - await self._find_units(connection, count)
                if more > 0:
                    late.setdefault((count.key_id, count.unit), [0, 0])[0] += more
            rows.append(self._row(count.key_id, count.hour, count.unit, count.source, count.units, 0))
        if rows:
            statement = insert_into(hours, self._database)
            larger = statement.on_conflict_do_update(
                index_elements=list(hours.primary_key),
                set_={"units": statement.excluded.units},
                where=hours.c.units < statement.excluded.units,
            )
            await connection.execute(larger, rows)
        await self._add_late(connection, late, current)

    async def _find_units(self, connection: AsyncConnection, count: UsageCount) -> int:
        """Return the stored units of a count, and lock its row."""
        row = and_(
            hours.c.key_id == count.key_id,
            hours.c.hour == count.hour,
            hours.c.unit == count.unit,
            hours.c.prefix == self._prefix,
            hours.c.source == count.source,
        )
        # A row to lock has to exist.
        none_yet = self._row(count.key_id, count.hour, count.unit, count.source, 0, 0)
        await connection.execute(insert_into(hours, self._database).values(none_yet).on_conflict_do_nothing())
        found = await connection.execute(select(hours.c.units).where(row).with_for_update())
        return int(found.scalar_one())

    async def _add_late(
        self, connection: AsyncConnection, late: Mapping[tuple[str, str], Sequence[int]], current: int
    ) -> None:
        await self._add_rows(
            connection,
            [self._row(key_id, current, unit, LATE, *sums) for (key_id, unit), sums in sorted(late.items())],
        )

    async def _add_rows(self, connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        statement = insert_into(hours, self._database)
        more = statement.on_conflict_do_update(
            index_elements=list(hours.primary_key),
            set_={
                "units": hours.c.units + statement.excluded.units,
                "refused": hours.c.refused + statement.excluded.refused,
            },
        )
        await connection.execute(more, rows)

    def _row(self, key_id: str, hour: int, unit: str, source: str, units: int, refused: int) -> dict[str, Any]:
        return {
            "key_id": key_id,
            "hour": hour,
            "unit": unit,
            "prefix": self._prefix,
            "source": source,
            "units": units,
            "refused": refused,
        }

    def _claim_batch(self, writer: str, batch: int, now: datetime) -> Any:
        """Return the statement that changes a row unless the batch was written before."""
        statement = insert_into(_writers, self._database).values(id=writer, batch=batch, at=now)
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"batch": statement.excluded.batch, "at": statement.excluded.at},
            where=_writers.c.batch < statement.excluded.batch,
        )

    async def of_key(self, key_id: str, first_hour: int, last_hour: int) -> Mapping[int, UsageSum]:
        """Return the usage of a key by hour (since 1970), for hours that have any."""
        found: dict[int, UsageSum] = {}
        for _, hour, unit, units, refused in await self._read_hours(hours.c.key_id == key_id, first_hour, last_hour):
            found.setdefault(hour, UsageSum()).add(unit, units, refused)
        return found

    async def of_keys(
        self, key_ids: Sequence[str], first_hour: int, last_hour: int, owner_ids: Collection[str] | None
    ) -> list[tuple[str, int, int, int]]:
        """Return (key id, hours since 1970, admitted, refused) of many keys, in units of ``requests``.

        With ``owner_ids``, only keys of these owners are found.
        """
        visible = select(keys.c.id).where(keys.c.id.in_(key_ids), self._is_our_key)
        if owner_ids is not None:
            visible = visible.where(keys.c.owner_id.in_(owner_ids))
        which = hours.c.key_id.in_(visible) & (hours.c.unit == REQUESTS)
        rows = await self._read_hours(which, first_hour, last_hour)
        return [(key_id, hour, units, refused) for key_id, hour, _, units, refused in rows]

    async def _read_hours(
        self, which: ColumnElement[bool], first_hour: int, last_hour: int
    ) -> list[tuple[str, int, str, int, int]]:
        group = (hours.c.key_id, hours.c.hour, hours.c.unit)
        statement = (
            select(*group, total(hours.c.units), total(hours.c.refused))
            .where(which, self._is_ours, hours.c.hour >= first_hour, hours.c.hour <= last_hour)
            .where(hours.c.source != LATE)  # these units are in their own hours too
            .group_by(*group)
        )
        async with self._database.read() as connection:
            return [tuple(row) for row in await connection.execute(statement)]


def _largest(counts: Iterable[UsageCount]) -> list[UsageCount]:
    """Return the counts in the order of their rows, and only the largest one of each row.

    An hour may have been read twice: by itself, and with all hours of its key. What arrives late must be added once.
    """
    found: dict[Sequence[Any], UsageCount] = {count[:4]: count for count in sorted(counts)}
    return list(found.values())


async def _move_times(connection: AsyncConnection, usage: Usage) -> None:
    for rows_used, target in ((usage.keys_used, keys), (usage.secrets_used, secrets)):
        if rows_used:
            times: list[dict[str, Any]] = [
                {"row_id": row_id, "used_at": at} for row_id, at in sorted(rows_used.items())
            ]
            column = target.c.last_used_at
            used_at = bindparam("used_at", type_=column.type)
            statement = update(target).where(
                target.c.id == bindparam("row_id"), or_(column.is_(None), column < used_at)
            )
            await connection.execute(statement.values(last_used_at=used_at), times)
