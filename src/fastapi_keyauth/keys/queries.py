"""Reads of keys: one, many, their usage and their history."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import get_args

from fastapi_keyauth.domain.keys import EventPage, Key, KeyFilters, KeyPage, Status, UsageHour
from fastapi_keyauth.domain.pagination import (
    MAX_PAGE,
    MAX_UNUSED_DAYS,
    MAX_USAGE_HOURS,
    check_key_id,
    read_cursor,
    read_event_cursor,
    read_search,
    write_cursor,
)
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import UsageSum, hour_of, start_of_hour
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.store import KeyStore, UsageStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder

STATUSES: tuple[Status, ...] = get_args(Status)
Owners = Collection[str] | None
"""Owners to whose keys a read is restricted. None: all."""


class KeyQueries:
    """Reads keys, in the turn of the caller. Every method may raise ``StoreUnavailable``.

    Args:
        store: Store of the keys.
        usage_store: Store of their usage.
        recorder: Buffer of the usage that is not stored yet.
        turns: Orders reads that share connections with changes.
        usage_hours_kept: The setting.
        now: Returns the current time, UTC.
    """

    def __init__(
        self,
        store: KeyStore,
        usage_store: UsageStore,
        recorder: UsageRecorder,
        turns: Turns,
        usage_hours_kept: int,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._usage = usage_store
        self._recorder = recorder
        self._turns = turns
        self._max_hours = min(MAX_USAGE_HOURS, usage_hours_kept)
        self._now = now

    async def get(self, id: str, owner_ids: Owners = None, turn: str | None = None) -> Key:
        """Return one key.

        Args:
            id: The key.
            owner_ids: Only if it belongs to one of these owners.
            turn: Owner whose turn the read takes. None: the application.

        Raises:
            KeyNotFound: If the key does not exist.
        """
        check_key_id(id)
        await self._recorder.flush_soon()
        async with self._turns.place(turn):
            return await self._store.get(id, self._now(), owner_ids)

    async def usage(
        self, id: str, hours: int = 24, owner_ids: Owners = None, turn: str | None = None
    ) -> list[UsageHour]:
        """Return the usage of a key in each of the last hours; see ``Keys.usage``.

        Raises:
            KeyNotFound: If the key does not exist.
            InvalidField: If ``hours`` is out of bounds.
        """
        last = self._check_hours(hours, self._max_hours)
        await self.get(id, owner_ids, turn)
        async with self._turns.place(turn):
            counts = await self._usage.of_key(id, last - hours + 1, last)
        found = []
        for hour in range(last - hours + 1, last + 1):
            counted = counts.get(hour, UsageSum())
            units = counted.complete()
            found.append(UsageHour(start_of_hour(hour), units[REQUESTS], counted.refused, units))
        return found

    async def usage_of_many(
        self, ids: Sequence[str], hours: int, owner_ids: Owners = None, turn: str | None = None
    ) -> tuple[datetime, dict[str, list[tuple[int, int]]]]:
        """Return the first of the last hours, and by key the admitted and refused requests in each of them.

        Hours that are not kept any more have none.

        Args:
            ids: The keys. Those without usage are left out of the result.
            hours: 1 to 168, and no more than are kept.
            owner_ids: Only keys of these owners.
            turn: Owner whose turn the read takes. None: the application.

        Raises:
            InvalidField: If ``hours`` is out of bounds.
        """
        last = self._check_hours(hours, MAX_USAGE_HOURS)
        await self._recorder.flush_soon()
        first = last - hours + 1
        found: dict[str, list[tuple[int, int]]] = {}
        async with self._turns.place(turn):
            rows = await self._usage.of_keys(ids, first, last, owner_ids)
        for key_id, hour, admitted, refused in rows:
            found.setdefault(key_id, [(0, 0)] * hours)[hour - first] = (admitted, refused)
        return start_of_hour(first), found

    async def events(
        self,
        id: str,
        cursor: str | None = None,
        limit: int = 50,
        owner_ids: Owners = None,
        turn: str | None = None,
        *,
        shows_admin_addresses: bool = True,
    ) -> EventPage:
        """Return the history of a key, newest first.

        Args:
            id: The key.
            cursor: ``next_cursor`` of the previous page.
            limit: 1 to 200.
            owner_ids: Only if the key belongs to one of these owners.
            turn: Owner whose turn the read takes. None: the application.
            shows_admin_addresses: Whether the page has the addresses from which ``admin`` acted.

        Raises:
            KeyNotFound: If the key does not exist.
            InvalidField: If the cursor is not a ``next_cursor``, or the limit is out of bounds.
        """
        _check_limit(limit)
        before = read_event_cursor(cursor) if cursor else None
        async with self._turns.place(turn):
            await self._store.get(check_key_id(id), self._now(), owner_ids)
            return await self._store.events(id, before, limit, shows_admin_addresses=shows_admin_addresses)

    async def list(
        self,
        owner_ids: Owners = None,
        status: Status | None = None,
        q: str | None = None,
        unused_for_days: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_revoked: bool = True,
        created_by: str | None = None,
        turn: str | None = None,
    ) -> KeyPage:
        """Return a page of keys, newest first; see ``Keys.list``.

        Raises:
            InvalidField: If the cursor is not a ``next_cursor``, a number is out of bounds, or the status does not
                exist.
        """
        now = self._now()
        _check_limit(limit)
        if status is not None and status not in STATUSES:
            raise InvalidField("status", f"must be one of {', '.join(STATUSES)}")
        if any(text is not None and "\0" in text for text in (q, created_by)):
            return KeyPage([], None)  # no row holds it, and PostgreSQL rejects it
        unused_since = None
        if unused_for_days is not None:
            if not 0 <= unused_for_days <= MAX_UNUSED_DAYS:
                raise InvalidField("unused_for_days", f"must be from 0 to {MAX_UNUSED_DAYS}")
            unused_since = now - timedelta(days=unused_for_days)
        text, key_id = read_search(q) if q else (None, None)
        filters = KeyFilters(owner_ids, status, text, key_id, created_by, unused_since, include_revoked)
        after = read_cursor(cursor) if cursor else None
        await self._recorder.flush_soon()
        async with self._turns.place(turn):
            keys, has_more = await self._store.find_page(now, filters, after, limit)
        return KeyPage(keys, write_cursor(keys[-1]) if has_more and keys else None)

    def _check_hours(self, hours: int, most: int) -> int:
        """Return the current hour, since 1970, if that many hours may be requested."""
        if not 1 <= hours <= most:
            raise InvalidField("hours", f"must be from 1 to {most}")
        return hour_of(self._now())


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidField("limit", f"must be from 1 to {MAX_PAGE}")
