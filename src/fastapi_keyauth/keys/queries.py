"""What may be found out about keys, for code and scripts: one, many, their usage and their history."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from fastapi_keyauth.domain.keys import EventPage, Key, KeyPage, Status, UsageHour
from fastapi_keyauth.domain.pagination import (
    MAX_PAGE,
    MAX_USAGE_HOURS,
    check_key_id,
    read_cursor,
    read_event_cursor,
    write_cursor,
)
from fastapi_keyauth.domain.units import HOUR_S
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.store import KeyStore, UsageStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder


class KeyQueries:
    """The reading half of ``auth.keys``. Every method may raise ``StoreUnavailable``."""

    def __init__(
        self, store: KeyStore, usage_store: UsageStore, recorder: UsageRecorder, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._usage = usage_store
        self._recorder = recorder
        self._now = now

    async def get(self, id: str, owner_id: str | None = None) -> Key:
        """One key; with ``owner_id`` only that owner's.

        Raises:
            KeyNotFound: there is none.
        """
        await self._recorder.flush_soon()
        return await self._store.get(check_key_id(id), self._now(), owner_id)

    async def usage(self, id: str, hours: int = 24, owner_id: str | None = None) -> list[UsageHour]:
        """Requests of a key in each of the last hours, oldest first, the current one last; at most 10 s old.

        Args:
            id: the key.
            hours: 1 to 168.
            owner_id: only if the key is this owner's.

        Raises:
            KeyNotFound: there is none.
            InvalidField: hours out of bounds.
        """
        last = self._check_hours(hours)
        await self.get(id, owner_id)
        counts = await self._usage.of_key(id, last - hours + 1, last)
        return [
            UsageHour(datetime.fromtimestamp(hour * HOUR_S, UTC), *counts.get(hour, (0, 0)))
            for hour in range(last - hours + 1, last + 1)
        ]

    async def usage_of_many(
        self, ids: Sequence[str], hours: int = 24, owner_id: str | None = None
    ) -> tuple[datetime, dict[str, list[tuple[int, int]]]]:
        """Requests of many keys in each of the last hours, in one statement; at most 10 s old.

        Args:
            ids: the keys.
            hours: 1 to 168.
            owner_id: only of keys that are this owner's.

        Returns:
            The first hour (UTC), and for each key with any requests its (admitted, refused) from that hour on.

        Raises:
            InvalidField: hours out of bounds.
        """
        last = self._check_hours(hours)
        await self._recorder.flush_soon()
        first = last - hours + 1
        found: dict[str, list[tuple[int, int]]] = {}
        for key_id, hour, admitted, refused in await self._usage.of_keys(ids, first, last, owner_id):
            found.setdefault(key_id, [(0, 0)] * hours)[hour - first] = (admitted, refused)
        return datetime.fromtimestamp(first * HOUR_S, UTC), found

    def _check_hours(self, hours: int) -> int:
        """The current hour, since 1970, if that many hours may be asked for."""
        if not 1 <= hours <= MAX_USAGE_HOURS:
            raise InvalidField("hours", f"must be from 1 to {MAX_USAGE_HOURS}")
        return int(self._now().timestamp()) // HOUR_S

    async def events(
        self, id: str, cursor: str | None = None, limit: int = 50, owner_id: str | None = None
    ) -> EventPage:
        """What was done to a key, newest first; with ``owner_id`` only to that owner's.

        Raises:
            KeyNotFound: there is none.
            InvalidField: a cursor that is none of ours, or a limit not from 1 to 200.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField("limit", f"must be from 1 to {MAX_PAGE}")
        await self._store.get(check_key_id(id), self._now(), owner_id)
        return await self._store.events(id, read_event_cursor(cursor) if cursor else None, limit)

    async def list(
        self,
        owner_id: str | None = None,
        status: Status | None = None,
        q: str | None = None,
        unused_for_days: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_revoked: bool = True,
    ) -> KeyPage:
        """Keys, newest first.

        Args:
            owner_id: only this owner's.
            status: only ``active``, ``disabled``, ``expired`` or ``revoked`` ones.
            q: only those whose name contains this, in any case.
            unused_for_days: only those not used for so many days; never used: since they were made.
            cursor: ``next_cursor`` of the page before.
            limit: 1 to 200.
            include_revoked: False leaves out revoked keys. Added in 0.2.

        Raises:
            InvalidField: a cursor that is none of ours, or a number out of bounds.
        """
        now = self._now()
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField("limit", f"must be from 1 to {MAX_PAGE}")
        if q is not None and "\0" in q:
            return KeyPage([], None)  # no name holds it, and PostgreSQL takes none
        unused_since = None
        if unused_for_days is not None:
            if not 0 <= unused_for_days <= 36_500:
                raise InvalidField("unused_for_days", "must be from 0 to 36500")
            unused_since = now - timedelta(days=unused_for_days)
        after = read_cursor(cursor) if cursor else None
        await self._recorder.flush_soon()
        keys = await self._store.find_page(now, owner_id, status, q, unused_since, after, limit + 1, include_revoked)
        more = len(keys) > limit
        return KeyPage(keys[:limit], write_cursor(keys[limit - 1]) if more else None)
