"""One change to one key, inside a transaction that holds its row."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.events import EventKind
from fastapi_keyauth.domain.keys import Actor, Key
from fastapi_keyauth.store.mapping import keys, secrets
from fastapi_keyauth.store.revocation import Pending, Revoked, note_owners, revoke_created
from fastapi_keyauth.store.tables import ChangeRow, EventRow, NoticeRow, OriginRow, table

_events = table(EventRow)
_changes = table(ChangeRow)
_origins = table(OriginRow)
_notices = table(NoticeRow)


class Recorded(NamedTuple):
    """A line of a key's history: the event, the actor, and the changed fields."""

    event: EventKind
    actor: Actor
    changes: dict[str, Any]


class StoredLimits(NamedTuple):
    """The limits of a key as they are stored; the key itself has those in force."""

    hourly_limit: int | None
    limits: list[dict[str, Any]] | None


class KeyChange:
    """A change to a key whose row is locked.

    Attributes:
        key: The key before the change; after the transaction, the changed key.
        stored_limits: Its limits as they are stored; ``key`` has those in force.
        policy_mark: Whether the policy for lifetimes applies to the key; see ``domain/lifetimes.py``.
        is_changed: Whether anything was written.
        read: Returns the key as this transaction has left it so far.
        pending: Row that waits for the announcement of this change. None if nothing was written.
        recorded: Lines that were written to its history.
        also_revoked: Other keys that were revoked with it, and their owners.
        pending_owners: Owners to the rows that wait for the announcement of that.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        key: Key,
        stored_limits: StoredLimits,
        policy_mark: str | None,
        now: datetime,
        read: Callable[[], Awaitable[Key]],
        prefix: str,
    ) -> None:
        self._connection = connection
        self._now = now
        self.read = read
        self._prefix = prefix
        self.key = key
        self.stored_limits = stored_limits
        self.policy_mark = policy_mark
        self.is_changed = False
        self.pending: int | None = None
        self.recorded: list[Recorded] = []
        self.also_revoked: Revoked = []
        self.pending_owners: Pending = {}

    async def update(self, values: Mapping[str, Any], event: EventKind, actor: Actor, changes: dict[str, Any]) -> None:
        """Write these columns, and a line of history."""
        await self._connection.execute(update(keys).where(keys.c.id == self.key.id).values(**values))
        if "allowed_origins" in values:
            await replace_origins(self._connection, self.key.id, values["allowed_origins"])
        if "expires_at" in values or "policy" in values:
            await self._connection.execute(delete(_notices).where(_notices.c.key_id == self.key.id))
        await self._record(event, actor, changes)

    async def replace_secret(self, secret: dict[str, Any], overlap: timedelta, actor: Actor) -> None:
        """Add a secret. The newest one before it stays valid for at most ``overlap``; older ones end now."""
        ends_at = self._now + overlap
        if self.key.expires_at is not None:
            ends_at = min(ends_at, self.key.expires_at)
        old_hint = self.key.hint
        still_open = (secrets.c.expires_at.is_(None)) | (secrets.c.expires_at > self._now)
        of_key = update(secrets).where(secrets.c.key_id == self.key.id, still_open)
        await self._connection.execute(of_key.where(secrets.c.expires_at.is_not(None)).values(expires_at=self._now))
        await self._connection.execute(of_key.where(secrets.c.expires_at.is_(None)).values(expires_at=ends_at))
        await add_secret(self._connection, self.key.id, secret, self._now)
        is_imported = old_hint.startswith("…")
        changes = {
            "hint": {"from": old_hint, "to": ("…" if is_imported else old_hint[:-4]) + secret["last4"]},
            "overlap_s": int(overlap.total_seconds()),
        }
        await self._record("rotated", actor, changes)

    async def revoke_created(self, actor: Actor, owner_ids: Collection[str] | None) -> None:
        """Revoke the keys that this key created, those that they created, and so on; only of these owners."""
        scope = (self.key.id, owner_ids, self._prefix)
        self.also_revoked = await revoke_created(self._connection, *scope, actor, self._now)
        concerned = {owner_id for _, owner_id in self.also_revoked}
        self.pending_owners = await note_owners(self._connection, concerned, self._prefix, self._now)

    async def has_recorded(self, event: EventKind, changes: dict[str, Any]) -> bool:
        """Return whether the history has this line already, by any actor."""
        of_kind = select(_events.c.changes).where(_events.c.key_id == self.key.id, _events.c.event == event)
        return changes in (await self._connection.execute(of_kind)).scalars().all()

    async def record(self, event: EventKind, actor: Actor, changes: dict[str, Any]) -> None:
        """Write only a line of history."""
        await self._record(event, actor, changes)

    async def _record(self, event: EventKind, actor: Actor, changes: dict[str, Any]) -> None:
        self.is_changed = True
        self.recorded.append(Recorded(event, actor, changes))
        await add_event(self._connection, self.key.id, self.key.owner_id, event, actor, self._now, changes)
        prefix = select(keys.c.prefix).where(keys.c.id == self.key.id).scalar_subquery()
        pending = insert(_changes).values(key_id=self.key.id, owner_id=self.key.owner_id, at=self._now, prefix=prefix)
        self.pending = (await self._connection.execute(pending.returning(_changes.c.id))).scalar_one()


async def add_event(
    connection: AsyncConnection,
    key_id: str,
    owner_id: str,
    event: str,
    actor: Actor,
    now: datetime,
    changes: dict[str, Any],
) -> None:
    """Add an entry to the history of a key."""
    row = {
        "key_id": key_id,
        "event": event,
        "actor": actor.name,
        "address": actor.address,
        "at": now,
        "reason": actor.reason,
        "by_admin": actor.needs_admin_for(owner_id),
    }
    await connection.execute(insert(_events).values(changes=changes, **row))


async def add_secret(connection: AsyncConnection, key_id: str, secret: dict[str, Any], now: datetime) -> None:
    """Insert a secret: its ``tag``, ``hash`` and ``last4``, never the secret itself."""
    await connection.execute(insert(secrets).values(key_id=key_id, created_at=now, **secret))


async def replace_origins(connection: AsyncConnection, key_id: str, origins: Sequence[str]) -> None:
    """Replace the rows of a key's allowed origins."""
    await connection.execute(delete(_origins).where(_origins.c.key_id == key_id))
    if origins:
        await connection.execute(insert(_origins), [{"origin": origin, "key_id": key_id} for origin in origins])
