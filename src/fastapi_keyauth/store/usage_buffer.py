"""Usage since the last write: nothing is written per request.

Units that the limiter counts (Redis) are read from it, for keys that this process has used since the last write. The
rest is counted here: units that this process admitted by itself, refused requests, and last-used times.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.concurrency.uncancellable import ShieldedTasks
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import UsageCount, UsageOf
from fastapi_keyauth.errors import LimiterUnavailable, StoreUnavailable
from fastapi_keyauth.store.usage import Usage, UsageStore

logger = logging.getLogger("fastapi_keyauth")

FLUSH_WAIT_S = 0.5
"""Seconds that a report waits for the usage of this process to be written."""
CLOSE_WAIT_S = 3.0
"""Seconds for the last write when the app stops. A database that hangs must not hold up the stop."""
SETTLE_WAIT_S = 1.0
"""Further seconds for it once the limiter is closed."""
MAX_COUNTS = 200_000
"""Maximum number of entries, by hour and secret or unit, that are kept while the database is unavailable."""
COUNTS_PER_WRITE = 5000
"""Number of keys whose counts are read and written together."""
OVERFLOWS_EVERY_S = 60.0
"""Seconds between log lines about counts that were not kept."""

_Id = TypeVar("_Id", int, str)
Rows = dict[tuple[str, int, int], list[float]]
"""(key id, secret id, hours since 1970) -> [admitted, refused, last admitted, last refused], times in s since 1970."""
Units = dict[tuple[str, int, str], int]
"""(key id, hours since 1970, unit) -> units, other than one request each, which are in ``Rows``."""
ReadCounts = Callable[[Sequence[UsageOf], int], Awaitable[list[UsageCount]]]
"""``Limiter.read_usage``."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Usage that is being written, under a number that stays the same if it is sent again."""

    number: int
    rows: Rows
    units: Units


class UsageRecorder:
    """Counts usage by key, hour and unit, and last-used times by key and secret.

    Args:
        store: Writes the batches.
        read_counts: Reads what the limiter counts.
        clock: Seconds since 1970.
    """

    def __init__(self, store: UsageStore, read_counts: ReadCounts, clock: Callable[[], float]) -> None:
        self._store = store
        self._read_counts = read_counts
        self._clock = clock
        self._pending: Rows = {}
        self._units: Units = {}
        self._touched: dict[tuple[str, int], str] = {}
        """(key id, hour) -> owner id, for keys that were used since their counts were last read from the limiter."""
        self._batch: _Batch | None = None
        """The batch that was sent without a response. It may have been written, so it must not change."""
        self._writer = ""
        self._number = 0
        self._open_hour = 0
        self._read_once: BoundedDict[str, int] = BoundedDict(MAX_COUNTS)
        """Key id -> hour in which all hours of the key were last read."""
        self._tasks = ShieldedTasks()
        self._lock = asyncio.Lock()
        self._overflows = LogThrottle(OVERFLOWS_EVERY_S)

    def admitted(self, key: KeySnapshot, hour: int, usage: Cost) -> None:
        """Count an admitted request.

        Args:
            key: The key.
            hour: The hour of the limiter's clock.
            usage: Units that the limiter did not count; see ``Decision.usage``.
        """
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        if usage is ONE_REQUEST:
            row[0] += 1
        elif usage:
            self._add(key.id, hour, usage)
        row[2] = self._clock()

    def refused(self, key: KeySnapshot, hour: int) -> None:
        """Count a refused request with a correct secret. The secret is in use all the same: a client has it."""
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        row[1] += 1
        row[3] = self._clock()

    def charged(self, key: KeySnapshot, hour: int, usage: Cost) -> None:
        """Count units that were charged after the request was admitted, such as those of a settled reservation."""
        self._touched.setdefault((key.id, hour), key.owner_id)
        self._add(key.id, hour, usage)

    def _add(self, key_id: str, hour: int, usage: Cost) -> None:
        for unit, number in usage:
            name = (key_id, hour, unit)
            if name in self._units or self._has_room():
                self._units[name] = self._units.get(name, 0) + number

    def _new_row(self, key: KeySnapshot, hour: int) -> list[float]:
        row: list[float] = [0, 0, 0, 0]
        if self._has_room():
            self._pending[key.id, key.secret_id, hour] = row
            self._touched.setdefault((key.id, hour), key.owner_id)
        return row

    def _has_room(self) -> bool:
        batch = self._batch
        waiting = 0 if batch is None else len(batch.rows) + len(batch.units)
        if max(len(self._pending) + len(self._units) + waiting, len(self._touched)) < MAX_COUNTS:
            return True
        if self._overflows.allow() is not None:
            logger.warning(
                "usage is not counted any more: the database has been unavailable too long",
                extra={"keyauth_event": "usage_full"},
            )
        return False

    def start(self) -> None:
        """Prepare for this event loop and process: a forked process must not write under the name of its parent."""
        self._lock = asyncio.Lock()
        self._tasks = ShieldedTasks()
        self._writer = secrets.token_hex(8)
        self._number = 0

    async def close(self) -> None:
        """Write what is left. A limiter that hangs may hold this up until it is closed: see ``settle``."""
        await asyncio.wait([asyncio.create_task(self.flush(), name="keyauth-last-usage")], timeout=CLOSE_WAIT_S)

    async def settle(self) -> None:
        """Complete a write that a hung limiter held up until it was closed. What is not written is logged as lost."""
        await self._tasks.wait(SETTLE_WAIT_S)
        if lost := self.count_lost():
            logger.error(
                "usage of %d keys is lost: the database is unavailable", lost, extra={"keyauth_event": "usage_lost"}
            )

    async def flush_soon(self) -> None:
        """Flush, but wait at most ``FLUSH_WAIT_S``: a report can do without the last few requests."""
        await asyncio.wait([asyncio.create_task(self.flush())], timeout=FLUSH_WAIT_S)

    def count_lost(self) -> int:
        """Return the number of keys with usage that only this process has, and that is not written yet."""
        batch = self._batch or _Batch(0, {}, {})
        rows = {**self._pending, **batch.rows}
        found = {key_id for (key_id, _, _), (admitted, refused, *_) in rows.items() if admitted or refused}
        return len(found | {key_id for key_id, _, _ in (*self._units, *batch.units)})

    async def flush(self) -> None:
        """Write what was counted. If the database is unavailable, it is kept for the next time."""
        # If it were cancelled midway with its caller, nobody would know what was written.
        await self._tasks.run(self._flush())

    async def _flush(self) -> None:
        async with self._lock:
            try:
                if self._batch is not None:  # left from the last time
                    await self._write([])
                await self._write_next()
            except StoreUnavailable:
                return  # logged where it happens

    async def _write_next(self) -> None:
        """Write what was counted until now. A key that is used meanwhile is read again the next time."""
        self._batch = self._next_batch()
        unread, self._touched = self._touched, {}
        try:
            while self._batch is not None or unread:
                some = list(itertools.islice(unread, COUNTS_PER_WRITE))
                counts = await self._count({name: unread[name] for name in some})
                await self._write(counts or [])
                if counts is None:
                    return
                for name in some:
                    del unread[name]
        finally:
            self._touched = {**unread, **self._touched}

    async def _count(self, touched: dict[tuple[str, int], str]) -> list[UsageCount] | None:
        """Return what the limiter has counted of some keys and hours. None if it is unavailable: it keeps them."""
        if not touched:
            return []
        # The first time in an hour all hours are read: some may be left from workers that were killed.
        wanted = [
            UsageOf(key_id, owner_id, hour if self._read_once.get(key_id) == hour else None)
            for (key_id, hour), owner_id in touched.items()
        ]
        try:
            counts = await self._read_counts(wanted, self._open_hour)
        except LimiterUnavailable:
            return None
        for key_id, hour in touched:
            self._read_once[key_id] = hour
        return counts

    async def _write(self, counts: list[UsageCount]) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        batch = self._batch
        if batch is not None:
            usage = _sum_up(batch)
            self._open_hour = await self._store.write(usage, counts, self._writer, batch.number, now)
            self._batch = None
        elif counts:
            await self._store.set_counts(counts, now)

    def _next_batch(self) -> _Batch | None:
        if not self._pending and not self._units:
            return None
        rows, units, self._pending, self._units = self._pending, self._units, {}, {}
        self._number += 1
        return _Batch(self._number, rows, units)


def _sum_up(batch: _Batch) -> Usage:
    """Return units and refused requests by key and hour, and the last use of each key and each secret."""
    usage = Usage(units=dict(batch.units))
    for (key_id, secret_id, hour), (admitted, refused, admitted_at, refused_at) in batch.rows.items():
        if admitted:
            name = (key_id, hour, REQUESTS)
            usage.units[name] = usage.units.get(name, 0) + int(admitted)
        if refused:
            usage.refused[key_id, hour] = usage.refused.get((key_id, hour), 0) + int(refused)
        if admitted_at:
            _move(usage.keys_used, key_id, admitted_at)
        _move(usage.secrets_used, secret_id, max(admitted_at, refused_at))
    return usage


def _move(times: dict[_Id, datetime], which: _Id, seconds: float) -> None:
    """Keep the latest time of each key or secret."""
    at = datetime.fromtimestamp(seconds, UTC)
    times[which] = max(at, times.get(which, at))
