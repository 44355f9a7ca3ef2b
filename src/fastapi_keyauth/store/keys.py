"""Keys, their secrets and their history."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import func, insert, select, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.keys import EventPage, Key, KeyEvent, KeyFilters, KeySnapshot
from fastapi_keyauth.errors import KeyNotFound, TooManyKeys
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.callers import Authority, CallerRows
from fastapi_keyauth.store.changes import KeyChange, StoredLimits, add_event, add_secret, replace_origins
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.imported_keys import ImportStore
from fastapi_keyauth.store.lineage import Lineage, newest_event
from fastapi_keyauth.store.mapping import FOR_TOKEN_COLUMNS, RowMapper, is_of_product, keys, secrets
from fastapi_keyauth.store.pages import KEY_COLUMNS_OF_ANY_SIZE, conditions_of, find_page_ids
from fastapi_keyauth.store.tables import EventRow, OriginRow, table
from fastapi_keyauth.store.token_reads import TokenReads
from fastapi_keyauth.telemetry.observer import Observer

_events = table(EventRow)
_origins = table(OriginRow)

MAX_SNAPSHOTS = 500
"""Maximum number of keys that one query reads for the request path."""


class KeyStore:
    """Reads and writes keys. A change writes its line of history, and a row for the outbox, in its transaction.

    Args:
        database: The database.
        settings: Defaults for values that a key's row does not set.
        observer: Notified of each change once it is committed.

    Attributes:
        imports: Imported keys.
        limit_rules: The limits in force of a key, from those that are stored.
        lineage: Detects a restored or replaced database.
    """

    def __init__(self, database: Database, settings: KeyAuthSettings, observer: Observer) -> None:
        self._database = database
        self.tasks = database.tasks
        self._observer = observer
        self._mapper = RowMapper(settings)
        self.limit_rules = self._mapper.rules
        self._is_ours = is_of_product(keys, settings.key_prefix)
        self.lineage = Lineage(database)
        self.imports = ImportStore(database, self._mapper, self.lineage)
        self._token_reads = TokenReads(database, self._mapper, self.lineage)

    async def find_for_token(self, key_id: str, tag: str) -> list[tuple[KeySnapshot, str]]:
        """Return the key and the secret's hash, once for each of its secrets with this tag. See ``TokenReads``."""
        return await self._token_reads.find(key_id, tag)

    async def find_snapshot(self, key_id: str) -> KeySnapshot | None:
        """Return a key as the request path needs it, with its newest secret. None if it does not exist."""
        statement = (
            select(*FOR_TOKEN_COLUMNS, newest_event)
            .select_from(self._mapper.token_tables.outerjoin(newest_event, true()))
            .where(keys.c.id == key_id, self._is_ours)
            .order_by(secrets.c.id.desc())
            .limit(1)
        )
        rows = await self._database.fetch(statement, is_like_probe=True)
        self.lineage.observe(rows)
        return self._mapper.key_snapshot(rows[0]) if rows else None

    async def find_by_secrets(self, secret_ids: Sequence[int]) -> dict[int, KeySnapshot]:
        """Return keys as the request path needs them, by the ids of their secrets. Missing ones do not exist any more.

        Args:
            secret_ids: Ids of secrets; one query reads ``MAX_SNAPSHOTS`` of them.
        """
        found: dict[int, KeySnapshot] = {}
        for start in range(0, len(secret_ids), MAX_SNAPSHOTS):
            statement = (
                select(*FOR_TOKEN_COLUMNS, newest_event)
                .select_from(self._mapper.token_tables.outerjoin(newest_event, true()))
                .where(secrets.c.id.in_(secret_ids[start : start + MAX_SNAPSHOTS]), self._is_ours)
            )
            rows = await self._database.fetch(statement, is_like_probe=True)
            self.lineage.observe(rows)
            found |= {row.secret_id: self._mapper.key_snapshot(row) for row in rows}
        return found

    async def get(self, key_id: str, now: datetime, owner_ids: Collection[str] | None = None) -> Key:
        """Return one key; with ``owner_ids`` only if it belongs to one of them.

        Raises:
            KeyNotFound: If the key does not exist.
        """
        async with self._database.read() as connection:
            return await self._get(connection, key_id, now, owner_ids)

    async def _get(
        self,
        connection: AsyncConnection,
        key_id: str,
        now: datetime,
        owner_ids: Collection[str] | None,
        lock: bool = False,
    ) -> Key:
        statement = select(keys).where(keys.c.id == key_id, self._is_ours)
        if owner_ids is not None:
            statement = statement.where(keys.c.owner_id.in_(owner_ids))
        if lock:
            statement = statement.with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        if row is None:
            raise KeyNotFound
        secret_rows = await self._secrets_of(connection, [key_id], now)
        return self._mapper.key(dict(row), secret_rows[key_id], now)

    async def _secrets_of(
        self, connection: AsyncConnection, key_ids: Iterable[str], now: datetime
    ) -> dict[str, list[Any]]:
        alive = secrets.c.expires_at.is_(None) | (secrets.c.expires_at > now)
        statement = select(secrets).where(secrets.c.key_id.in_(list(key_ids)), alive).order_by(secrets.c.id.desc())
        found: dict[str, list[Any]] = {}
        for row in (await connection.execute(statement)).mappings():
            found.setdefault(row["key_id"], []).append(row)
        return found

    async def find_page(
        self, now: datetime, filters: KeyFilters, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[list[Key], bool]:
        """Return keys, newest first, and whether more follow.

        Args:
            now: The time, UTC.
            filters: Which keys.
            after: Creation time and id of the last key of the previous page.
            limit: Maximum number of keys. A page that becomes too large has fewer.
        """
        newest_first = select(keys).order_by(keys.c.created_at.desc(), keys.c.id.desc())
        statement = newest_first.where(self._is_ours, *conditions_of(filters, self._mapper, now))
        if after is not None:
            # A row value keeps this one range of the index; the typed bind goes through UTCDateTime.
            last = tuple_(*after, types=[keys.c.created_at.type, keys.c.id.type])
            statement = statement.where(tuple_(keys.c.created_at, keys.c.id) < last)
        async with self._database.read() as connection:
            ids, has_more = await find_page_ids(connection, statement, keys.c.id, KEY_COLUMNS_OF_ANY_SIZE, limit)
            rows = (await connection.execute(newest_first.where(keys.c.id.in_(ids)))).mappings().all()
            secret_rows = await self._secrets_of(connection, ids, now)
            return [self._mapper.key(dict(row), secret_rows[row["id"]], now) for row in rows], has_more

    @uncancellable
    async def create(
        self,
        values: dict[str, Any],
        secret: dict[str, Any],
        now: datetime,
        authority: Authority,
        max_keys: int | None,
        check: Callable[[], None],
    ) -> Key:
        """Insert a key with its first secret.

        Args:
            values: Columns of the key.
            secret: Columns of its secret.
            now: The time, UTC.
            authority: Confirmed before anything is written; names the creator.
            max_keys: Maximum number of keys of the owner. None: no maximum.
            check: Called after that. Raises to stop.

        Raises:
            TooManyKeys: If the owner has ``max_keys`` keys that are not revoked.
        """
        async with self._database.write() as connection:
            await authority.confirm(CallerRows(connection, self._mapper, now))
            check()
            actor = authority.actor()
            if max_keys is not None:
                await self._check_room(connection, values["owner_id"], max_keys)
            await connection.execute(
                insert(keys).values(created_at=now, created_by=actor.name, prefix=self._mapper.prefix, **values)
            )
            await add_secret(connection, values["id"], secret, now)
            await replace_origins(connection, values["id"], values["allowed_origins"])
            await add_event(connection, values["id"], values["owner_id"], "created", actor, now, {})
            key = await self._get(connection, values["id"], now, None)
        self._observer.changed("created", key, actor, {})
        return key

    async def check_room(self, owner_id: str, max_keys: int) -> None:
        """Check whether the owner may have one more key, before it is hashed. ``create`` checks again.

        Raises:
            TooManyKeys: If the owner has ``max_keys`` keys that are not revoked.
        """
        async with self._database.read() as connection:
            await self._count_keys(connection, owner_id, max_keys)

    async def _check_room(self, connection: AsyncConnection, owner_id: str, max_keys: int) -> None:
        if not self._database.is_sqlite:
            # Two concurrent requests must not both see one place left. SQLite has one writer anyway.
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:owner, 0))")
            await connection.execute(lock, {"owner": owner_id})
        await self._count_keys(connection, owner_id, max_keys)

    async def _count_keys(self, connection: AsyncConnection, owner_id: str, max_keys: int) -> None:
        of_owner = select(func.count()).where(keys.c.owner_id == owner_id, keys.c.revoked_at.is_(None))
        if (await connection.execute(of_owner.where(self._is_ours).select_from(keys))).scalar_one() >= max_keys:
            raise TooManyKeys(max_keys)

    @asynccontextmanager
    async def change(
        self,
        key_id: str,
        now: datetime,
        authority: Authority,
        owner_ids: Collection[str] | None = None,
        *,
        is_urgent: bool = False,
    ) -> AsyncIterator[KeyChange]:
        """Open a transaction on one key, which stays locked until the end, so that what was checked still holds.

        Args:
            key_id: The key.
            now: The time, UTC.
            authority: Confirmed before the block is entered.
            owner_ids: Only if the key belongs to one of these owners. None: any owner.
            is_urgent: See ``Database.write``.

        Raises:
            KeyNotFound: If the key does not exist, or is not one of these owners'.
        """
        async with self._database.write(is_urgent=is_urgent) as connection:
            rows = CallerRows(connection, self._mapper, now)
            # Both rows are locked in the order of their ids: two keys that change each other must not deadlock.
            is_caller_first = authority.key_id is not None and authority.key_id < key_id
            if is_caller_first:
                await authority.confirm(rows)
            key = await self._get(connection, key_id, now, owner_ids, lock=True)
            if not is_caller_first:
                await authority.confirm(rows)
            columns = (keys.c.hourly_limit, keys.c.limits, keys.c.policy)
            stored = (await connection.execute(select(*columns).where(keys.c.id == key_id))).one()
            read = partial(self._get, connection, key_id, now, None)
            change = KeyChange(
                connection,
                key,
                StoredLimits(stored.hourly_limit, stored.limits),
                stored.policy,
                now,
                read,
                self._mapper.prefix,
            )
            yield change
            if change.is_changed:
                change.key = await change.read()
        for event, actor, changes in change.recorded:
            self._observer.changed(event, change.key, actor, changes)
        if change.also_revoked:
            self._observer.revoked_all(change.also_revoked, authority.actor())

    async def events(
        self, key_id: str, before: int | None, limit: int, *, shows_admin_addresses: bool = True
    ) -> EventPage:
        """Return a page of a key's history, newest first."""
        newest_first = select(_events).where(_events.c.key_id == key_id).order_by(_events.c.id.desc())
        statement = newest_first if before is None else newest_first.where(_events.c.id < before)
        async with self._database.read() as connection:
            ids, has_more = await find_page_ids(connection, statement, _events.c.id, (_events.c.changes,), limit)
            rows = (await connection.execute(newest_first.where(_events.c.id.in_(ids)))).all()
        items = [
            KeyEvent(
                row.event,
                row.actor,
                None if row.by_admin and not shows_admin_addresses else row.address,
                row.at,
                row.changes,
                row.reason,
            )
            for row in rows
        ]
        return EventPage(items, str(rows[-1].id) if has_more else None)

    async def origins_of_active_keys(self, now: datetime) -> frozenset[str]:
        """Return all origins in the lists of active keys."""
        joined = _origins.join(keys, keys.c.id == _origins.c.key_id)
        statement = select(_origins.c.origin).distinct().select_from(joined)
        statement = statement.where(self._mapper.has_status("active", now), self._is_ours)
        async with self._database.read() as connection:
            return frozenset((await connection.execute(statement)).scalars())
