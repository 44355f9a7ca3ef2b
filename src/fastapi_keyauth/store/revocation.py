"""Revocation of many keys in one transaction, announced for all keys of an owner by one write."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.keys import Actor
from fastapi_keyauth.store.mapping import is_of_product, keys
from fastapi_keyauth.store.tables import ChangeRow, EventRow, table

_changes = table(ChangeRow)
_events = table(EventRow)

AT_ONCE = 500
"""Maximum number of ids in one statement. SQLite before 3.32 accepts 999 values."""
MAX_ROUNDS = 100
"""Maximum number of searches for keys that were created while others were being locked."""
Pending = dict[str, int]
"""Owner to the row that waits for the announcement of its change."""
Revoked = list[tuple[str, str]]
"""Ids of revoked keys, each with its owner."""


async def revoke_matching(
    connection: AsyncConnection, which: ColumnElement[bool], actor: Actor, now: datetime
) -> Revoked:
    """Revoke keys, with an entry in the history of each. They are locked in the order of their ids.

    A key among them may be creating another one just now. Its row is locked until that is committed, and a statement
    does not see what was committed while it waited. So this goes on until it finds no more keys.
    """
    alive = which & keys.c.revoked_at.is_(None)
    statement = select(keys.c.id, keys.c.owner_id).where(alive).order_by(keys.c.id).with_for_update()
    revoked: Revoked = []
    while found := [(row.id, row.owner_id) for row in await connection.execute(statement)]:
        for start in range(0, len(found), AT_ONCE):
            ids = [key_id for key_id, _ in found[start : start + AT_ONCE]]
            await connection.execute(update(keys).where(keys.c.id.in_(ids)).values(revoked_at=now))
        entry: dict[str, Any] = {"event": "revoked", "actor": actor.name, "address": actor.address, "at": now}
        rows = [
            {
                **entry,
                "changes": {},
                "key_id": key_id,
                "reason": actor.reason,
                "by_admin": actor.needs_admin_for(owner_id),
            }
            for key_id, owner_id in found
        ]
        await connection.execute(insert(_events), rows)
        revoked += found
    return revoked


async def revoke_created(
    connection: AsyncConnection,
    key_id: str,
    owner_ids: Collection[str] | None,
    prefix: str,
    actor: Actor,
    now: datetime,
) -> Revoked:
    """Revoke the keys that a key created, those that they created, and so on.

    Args:
        connection: The transaction.
        key_id: The key with which to begin.
        owner_ids: Only keys of these owners. None: of all.
        prefix: The setting ``key_prefix``.
        actor: Who revokes.
        now: The time, UTC.
    """
    revoked: Revoked = []
    known: set[str] = set()
    # One of them may be creating another just now, as in ``revoke_matching``. Once it is revoked it creates no more, so
    # each round needs a key that did not exist in the round before.
    for _ in range(MAX_ROUNDS):
        ids = sorted(await _find_created(connection, key_id, owner_ids, prefix) - known)
        if not ids:
            break
        known.update(ids)
        for start in range(0, len(ids), AT_ONCE):
            revoked += await revoke_matching(connection, keys.c.id.in_(ids[start : start + AT_ONCE]), actor, now)
    return revoked


async def _find_created(
    connection: AsyncConnection, key_id: str, owner_ids: Collection[str] | None, prefix: str
) -> set[str]:
    """Return the ids of the keys that a key created, of those that they created, and so on."""
    found: set[str] = set()
    creators = [key_id]
    while creators:
        names = [f"key:{id}" for id in creators[:AT_ONCE]]
        created = select(keys.c.id).where(keys.c.created_by.in_(names), is_of_product(keys, prefix))
        if owner_ids is not None:
            created = created.where(keys.c.owner_id.in_(owner_ids))
        new = set((await connection.execute(created)).scalars()) - found
        found |= new
        creators = [*creators[AT_ONCE:], *new]
    return found


async def note_owners(connection: AsyncConnection, owner_ids: Iterable[str], prefix: str, now: datetime) -> Pending:
    """Insert the rows that announce to all workers that the keys of these owners have changed."""
    pending: Pending = {}
    for owner_id in sorted(owner_ids):
        row = insert(_changes).values(key_id="", owner_id=owner_id, at=now, prefix=prefix)
        pending[owner_id] = (await connection.execute(row.returning(_changes.c.id))).scalar_one()
    return pending
