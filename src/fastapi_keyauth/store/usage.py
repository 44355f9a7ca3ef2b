"""Usage and last-used times, written in batches that name their columns."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product, keys, secrets
from fastapi_keyauth.store.tables import UsageRow, WriterRow, table

_usage = table(UsageRow)
_writers = table(WriterRow)


@dataclass(slots=True)
class Usage:
    """Usage since the last write: counts by key and hour, times by key and by secret."""

    counts: dict[tuple[str, int], list[int]]
    """(key id, hours since 1970) -> [admitted, refused]."""
    keys_used: dict[str, datetime]
    secrets_used: dict[int, datetime]


class UsageStore:
    """Adds to the counters, and moves last-used times forward but never back.

    Args:
        database: The database.
        prefix: The product's key prefix; usage of other products is not found.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._is_ours = is_of_product(keys, prefix)

    async def add(self, usage: Usage, writer: str, batch: int, now: datetime) -> None:
        """Write a batch in one transaction. A batch that was written before is ignored.

        So a batch whose commit succeeded although its answer was lost may be sent again. Rows are written in the order
        of their keys, so that workers do not deadlock.

        Args:
            usage: The usage to add.
            writer: The process that counted it.
            batch: A number that grows from batch to batch of this writer.
            now: The time, UTC.
        """
        rows = [
            {"key_id": key_id, "hour": hour, "admitted": admitted, "refused": refused}
            for (key_id, hour), (admitted, refused) in sorted(usage.counts.items())
        ]
        async with self._database.write() as connection:
            if (await connection.execute(self._note(writer, batch, now))).rowcount == 0:
                return
            if rows:
                await connection.execute(self._upsert(), rows)
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

    def _note(self, writer: str, batch: int, now: datetime) -> Any:
        statement = self._insert(_writers).values(id=writer, batch=batch, at=now)
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"batch": statement.excluded.batch, "at": statement.excluded.at},
            where=_writers.c.batch < statement.excluded.batch,
        )

    def _upsert(self) -> Any:
        statement = self._insert(_usage)
        return statement.on_conflict_do_update(
            index_elements=["key_id", "hour"],
            set_={
                "admitted": _usage.c.admitted + statement.excluded.admitted,
                "refused": _usage.c.refused + statement.excluded.refused,
            },
        )

    def _insert(self, target: Table) -> Any:
        return sqlite.insert(target) if self._database.is_sqlite else postgresql.insert(target)

    async def of_key(self, key_id: str, first_hour: int, last_hour: int) -> Mapping[int, tuple[int, int]]:
        """Return hour (since 1970) to (admitted, refused) of a key, for hours that have any usage."""
        statement = select(_usage.c.hour, _usage.c.admitted, _usage.c.refused).where(
            _usage.c.key_id == key_id, _usage.c.hour >= first_hour, _usage.c.hour <= last_hour
        )
        async with self._database.read() as connection:
            return {row.hour: (row.admitted, row.refused) for row in await connection.execute(statement)}

    async def of_keys(
        self, key_ids: Sequence[str], first_hour: int, last_hour: int, owner_ids: Collection[str] | None
    ) -> list[tuple[str, int, int, int]]:
        """Return (key id, hours since 1970, admitted, refused) of many keys; with ``owner_ids`` only of theirs."""
        statement = select(_usage.c.key_id, _usage.c.hour, _usage.c.admitted, _usage.c.refused).where(
            _usage.c.key_id.in_(key_ids), _usage.c.hour >= first_hour, _usage.c.hour <= last_hour
        )
        statement = statement.join(keys, keys.c.id == _usage.c.key_id).where(self._is_ours)
        if owner_ids is not None:
            statement = statement.where(keys.c.owner_id.in_(owner_ids))
        async with self._database.read() as connection:
            return [tuple(row) for row in await connection.execute(statement)]
