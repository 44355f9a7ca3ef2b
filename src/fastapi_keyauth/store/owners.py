"""Owners, and the changes that concern all keys of one."""

import secrets as random
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, delete, func, or_, select, update

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.owners import Erasure, KeyCounts
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.callers import Authority, CallerRows, lock_owner
from fastapi_keyauth.store.changes import add_event
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import RowMapper, is_of_product, keys, owners
from fastapi_keyauth.store.revocation import Pending, note_owners, revoke_matching
from fastapi_keyauth.store.tables import EventRow, OriginRow, SessionRow, table
from fastapi_keyauth.store.upserts import insert_into
from fastapi_keyauth.store.usage_days import days
from fastapi_keyauth.telemetry.observer import Observer

_events = table(EventRow)
_origins = table(OriginRow)
_sessions = table(SessionRow)

OWNER_CHANGED = "owner_changed"
"""Event of a line of history without a key. It shows how far the database is; see ``store/lineage.py``."""
ERASED = "erased"
"""Replacement for personal values."""
Check = Callable[[], None]


class OwnerSettings(NamedTuple):
    """Settings of an owner, completed by the defaults."""

    name: str | None
    limits: tuple[Limit, ...]
    suspended_at: datetime | None
    reason: str | None


class OwnerStore:
    """Reads and writes owners.

    Args:
        database: The database.
        settings: The defaults.
        observer: Notified of each change once it is committed.
    """

    def __init__(self, database: Database, settings: KeyAuthSettings, observer: Observer) -> None:
        self._database = database
        self.tasks = database.tasks
        self._mapper = RowMapper(settings)
        self._observer = observer
        self._is_our_key = is_of_product(keys, settings.key_prefix)
        self._is_our_session = is_of_product(_sessions, settings.key_prefix)

    async def find(self, owner_id: str, now: datetime) -> tuple[OwnerSettings, KeyCounts]:
        """Return what is set for an owner, and the number of its keys by status."""
        of_owner = (keys.c.owner_id == owner_id) & self._is_our_key
        counts = [
            select(func.count())
            .select_from(keys)
            .where(of_owner, self._mapper.has_status(status, now))
            .scalar_subquery()
            for status in ("active", "disabled", "expired", "revoked")
        ]
        async with self._database.read() as connection:
            row = (await connection.execute(select(owners).where(self._is(owner_id)))).first()
            numbers = (await connection.execute(select(*counts))).one()
        if row is None:
            return OwnerSettings(None, self._mapper.rules.of_owner(None), None, None), KeyCounts(*numbers)
        limits = self._mapper.rules.of_owner(row.limits)
        return OwnerSettings(row.name, limits, row.suspended_at, row.reason), KeyCounts(*numbers)

    async def find_limited(self, owner_ids: Collection[str]) -> set[str]:
        """Return those of these owners that have a limit, of their own or by default."""
        ours = (owners.c.prefix == self._mapper.prefix) & owners.c.owner_id.in_(owner_ids)
        if not owner_ids:
            return set()
        async with self._database.read() as connection:
            rows = await connection.execute(select(owners.c.owner_id, owners.c.limits).where(ours))
            stored = {row.owner_id: row.limits for row in rows}
        return {owner_id for owner_id in owner_ids if self._mapper.rules.of_owner(stored.get(owner_id))}

    async def find_names(self, owner_ids: Collection[str]) -> dict[str, str | None]:
        """Return the names of those owners for whom something was set."""
        ours = (owners.c.prefix == self._mapper.prefix) & owners.c.owner_id.in_(owner_ids)
        async with self._database.read() as connection:
            rows = await connection.execute(select(owners.c.owner_id, owners.c.name).where(ours))
            return {row.owner_id: row.name for row in rows}

    async def find_suspended(self, key_ids: Collection[str], owner_ids: Collection[str] | None) -> list[str]:
        """Return the suspended owners of these keys.

        Args:
            key_ids: The keys.
            owner_ids: Only owners among these. None: any.
        """
        of_keys = select(keys.c.owner_id).where(keys.c.id.in_(key_ids), self._is_our_key)
        suspended = (owners.c.prefix == self._mapper.prefix) & owners.c.suspended_at.is_not(None)
        statement = select(owners.c.owner_id).where(suspended, owners.c.owner_id.in_(of_keys))
        if owner_ids is not None:
            statement = statement.where(owners.c.owner_id.in_(owner_ids))
        async with self._database.read() as connection:
            return list((await connection.execute(statement.order_by(owners.c.owner_id))).scalars())

    @uncancellable
    async def set(
        self,
        owner_id: str,
        values: Mapping[str, Any],
        what: str,
        now: datetime,
        authority: Authority,
        check: Check,
        reason: str | None = None,
    ) -> Pending:
        """Write only these columns of an owner.

        Args:
            owner_id: The owner.
            values: Columns to values.
            what: ``updated``, ``suspended`` or ``resumed``.
            now: The time, UTC.
            authority: Confirmed before anything is written.
            check: Called after that. Raises to stop.
            reason: Reason, for the log.
        """
        async with self._database.write(is_urgent=what == "suspended") as connection:
            await authority.confirm(CallerRows(connection, self._mapper, now))
            check()
            await lock_owner(connection, owner_id)
            statement = insert_into(owners, self._database).values(
                prefix=self._mapper.prefix, owner_id=owner_id, created_at=now, updated_at=now, **values
            )
            changed = {name: statement.excluded[name] for name in (*values, "updated_at")}
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["prefix", "owner_id"], set_=changed)
            )
            await add_event(connection, "", owner_id, OWNER_CHANGED, authority.actor(), now, {})
            pending = await note_owners(connection, [owner_id], self._mapper.prefix, now)
        self._observer.owner_changed(what, owner_id, authority.actor(reason))
        return pending

    @uncancellable
    async def revoke_keys(
        self,
        owner_id: str | None,
        created_by: str | None,
        now: datetime,
        authority: Authority,
        check: Check,
        reason: str | None,
    ) -> tuple[int, Pending]:
        """Revoke the keys of an owner, or those that an actor created, in one transaction.

        Returns:
            Number of revoked keys, and the pending announcements.
        """
        async with self._database.write(is_urgent=True) as connection:
            await authority.confirm(CallerRows(connection, self._mapper, now))
            check()
            actor = authority.actor(reason)
            revoked = await revoke_matching(connection, self._find_keys(owner_id, created_by), actor, now)
            # Also if nothing is left to revoke: the announcement of the first try may have failed.
            concerned = {owner for _, owner in revoked} | ({owner_id} if owner_id is not None else set())
            pending = await note_owners(connection, concerned, self._mapper.prefix, now)
        self._observer.revoked_all(revoked, actor)
        return len(revoked), pending

    @uncancellable
    async def erase(
        self, owner_id: str, now: datetime, authority: Authority, check: Check, reason: str | None
    ) -> tuple[Erasure, Pending]:
        """Revoke the keys and sessions of an owner, and remove everything personal from the tables.

        Returns:
            Numbers of changed rows, and the pending announcements.
        """
        alias = f"{ERASED}:{random.token_hex(8)}"  # nobody can log in as this owner and see the keys
        user = f"user:{owner_id}"
        async with self._database.write(is_urgent=True) as connection:
            await authority.confirm(CallerRows(connection, self._mapper, now))
            check()
            actor = authority.actor(reason)
            revoked = await revoke_matching(connection, self._find_keys(owner_id, None), actor, now)
            ids = select(keys.c.id).where(keys.c.owner_id == owner_id, self._is_our_key)
            await connection.execute(delete(_origins).where(_origins.c.key_id.in_(ids)))
            ours = select(keys.c.id).where(self._is_our_key)
            by_user = (_events.c.actor == user) & ((_events.c.key_id == "") | _events.c.key_id.in_(ours))
            personal = or_(_events.c.key_id.in_(ids), by_user)
            events = await connection.execute(
                update(_events).where(personal).values(actor=ERASED, address=None, reason=None, changes={})
            )
            erased = {"owner_id": alias, "name": ERASED, "metadata": {}, "allowed_origins": [], "allowed_ips": []}
            # The id of a key names nobody, and a revocation with ``include_created`` follows it.
            by_key = keys.c.created_by.like("key:%")
            creator = case((by_key, keys.c.created_by), else_=ERASED)
            of_owner = update(keys).where(keys.c.owner_id == owner_id, self._is_our_key)
            changed = await connection.execute(of_owner.values(created_by=creator, **erased))
            await connection.execute(
                update(keys).where(keys.c.created_by == user, self._is_our_key).values(created_by=ERASED)
            )
            ended = await connection.execute(
                delete(_sessions).where(_sessions.c.user_id == owner_id, self._is_our_session)
            )
            of_days = (days.c.owner_id == owner_id) & (days.c.prefix == self._mapper.prefix)
            used = await connection.execute(update(days).where(of_days).values(owner_id=alias))
            known = await connection.execute(delete(owners).where(self._is(owner_id)))
            await add_event(connection, "", alias, OWNER_CHANGED, authority.actor(), now, {})
            pending = await note_owners(connection, [owner_id], self._mapper.prefix, now)
        self._observer.revoked_all(revoked, actor)
        self._observer.owner_changed("erased", None, actor)
        counts = (changed, ended, events, known, used)
        return Erasure(*(one.rowcount for one in counts)), pending

    def _is(self, owner_id: str) -> ColumnElement[bool]:
        return (owners.c.prefix == self._mapper.prefix) & (owners.c.owner_id == owner_id)

    def _find_keys(self, owner_id: str | None, created_by: str | None) -> ColumnElement[bool]:
        found = self._is_our_key
        if owner_id is not None:
            found &= keys.c.owner_id == owner_id
        if created_by is not None:
            found &= keys.c.created_by == created_by
        return found
