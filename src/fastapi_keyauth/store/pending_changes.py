"""The rows of the outbox: changes that are stored and not yet announced to all workers; see ``keys/outbox.py``."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product, keys
from fastapi_keyauth.store.tables import ChangeRow, table

_changes = table(ChangeRow)


class PendingChangeStore:
    """Reads and deletes pending changes. The transactions of changes insert them.

    Args:
        database: The database.
        prefix: The product's key prefix. Other products have their own workers.

    Attributes:
        tasks: Runs deletions, which complete even if their caller is cancelled.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self.tasks = database.tasks
        self._are_ours = is_of_product(_changes, prefix)

    async def find(self, limit: int) -> list[tuple[int, str, str]]:
        """Return row id, key id and owner id of changes that were stored and not announced, oldest first.

        The key id is "" for a change of the owner.
        """
        # Every worker calls this every few seconds. Its short timeout makes it notice an outage without a request.
        rows = await self._database.fetch(
            select(
                _changes.c.id, _changes.c.key_id, func.coalesce(_changes.c.owner_id, keys.c.owner_id, "").label("owner")
            )
            .select_from(_changes.outerjoin(keys, keys.c.id == _changes.c.key_id))
            .where(self._are_ours)
            .order_by(_changes.c.id)
            .limit(limit)
        )
        return [(row.id, row.key_id, row.owner) for row in rows]

    @uncancellable
    async def delete_before(self, moment: datetime) -> None:
        """Delete changes that all workers have had time to read."""
        async with self._database.write() as connection:
            await connection.execute(sql_delete(_changes).where(_changes.c.at < moment, self._are_ours))

    @uncancellable
    async def delete(self, ids: Sequence[int]) -> None:
        """Delete changes that were announced."""
        async with self._database.write() as connection:
            await connection.execute(sql_delete(_changes).where(_changes.c.id.in_(ids)))
