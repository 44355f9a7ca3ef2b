"""Usage, counted in memory and written in batches: nothing is written per request."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.store import Usage, UsageStore

logger = logging.getLogger("fastapi_keyauth")

FLUSH_WAIT_S = 0.5
CLOSE_WAIT_S = 3.0
"""Seconds for the last write when the app stops. A database that hangs must not hold up the stop."""
MAX_COUNTS = 200_000  # (secret, hour) pairs kept while the database is unavailable
OVERFLOWS_EVERY_S = 60.0
"""Seconds between log lines about counts that were not kept."""

_Id = TypeVar("_Id", int, str)
Rows = dict[tuple[str, int, int], list[float]]
"""(key id, secret id, hours since 1970) -> [admitted, refused, last admitted, last seen], times in s since 1970."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows that are being written, under a name that stays the same if they are sent again."""

    writer: str
    number: int
    rows: Rows


class UsageRecorder:
    """Counts usage by key and hour, and last-used times by key and secret.

    Args:
        store: Writes the batches.
        clock: Seconds since 1970.
    """

    def __init__(self, store: UsageStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._pending: Rows = {}
        self._batch: _Batch | None = None
        """The batch that was sent without a response. It may have been written, so it must not change."""
        self._writer = ""
        self._number = 0
        self._lock = asyncio.Lock()
        self._overflows = LogThrottle(OVERFLOWS_EVERY_S)

    def admitted(self, key: KeySnapshot, hour: int, units: int = 1) -> None:
        """Count an admitted unit."""
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        row[0] += units
        row[2] = row[3] = self._clock()

    def refused(self, key: KeySnapshot, hour: int) -> None:
        """Count a refused request with a correct secret. The secret is in use all the same: a client has it."""
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        row[1] += 1
        row[3] = self._clock()

    def _new_row(self, key: KeySnapshot, hour: int) -> list[float]:
        row: list[float] = [0, 0, 0, 0]
        if len(self._pending) + (0 if self._batch is None else len(self._batch.rows)) < MAX_COUNTS:
            self._pending[key.id, key.secret_id, hour] = row
        elif self._overflows.allow() is not None:
            logger.warning(
                "usage is not counted any more: the database has been unavailable too long",
                extra={"keyauth_event": "usage_full"},
            )
        return row

    def start(self) -> None:
        """Prepare for this event loop and process: a forked process must not write under the name of its parent."""
        self._lock = asyncio.Lock()
        self._writer = secrets.token_hex(8)
        self._number = 0

    async def close(self) -> None:
        """Write what is left. What cannot be written is logged as lost."""
        await asyncio.wait([asyncio.create_task(self.flush(), name="keyauth-last-usage")], timeout=CLOSE_WAIT_S)
        if lost := self.count_lost():
            logger.error(
                "usage of %d keys is lost: the database is unavailable", lost, extra={"keyauth_event": "usage_lost"}
            )

    async def flush_soon(self) -> None:
        """Flush, but wait at most ``FLUSH_WAIT_S``: a report can do without the last few requests."""
        await asyncio.wait([asyncio.create_task(self.flush())], timeout=FLUSH_WAIT_S)

    def count_lost(self) -> int:
        """Return the number of keys whose usage is not written yet."""
        rows = {**self._pending, **({} if self._batch is None else self._batch.rows)}
        return len({key_id for key_id, _, _ in rows})

    async def flush(self) -> None:
        """Write what was counted. If the database is unavailable, it is kept for the next time."""
        # Shielded: if a flush were cancelled midway, nobody would know what was written.
        await asyncio.shield(asyncio.create_task(self._flush(), name="keyauth-usage"))

    async def _flush(self) -> None:
        async with self._lock:
            # The batch left from the last time, then what was counted since.
            for _ in range(1 if self._batch is None else 2):
                self._batch = self._batch or self._next_batch()
                if self._batch is None:
                    return
                batch, now = self._batch, datetime.fromtimestamp(self._clock(), UTC)
                try:
                    await self._store.add(_sum_up(batch.rows), batch.writer, batch.number, now)
                except StoreUnavailable:
                    return
                self._batch = None

    def _next_batch(self) -> _Batch | None:
        if not self._pending:
            return None
        rows, self._pending = self._pending, {}
        self._number += 1
        return _Batch(self._writer, self._number, rows)


def _sum_up(rows: Rows) -> Usage:
    """Return counts by key and hour, and the last use of each key and each secret."""
    usage = Usage(counts={}, keys_used={}, secrets_used={})
    for (key_id, secret_id, hour), (admitted, refused, admitted_at, seen_at) in rows.items():
        counts = usage.counts.setdefault((key_id, hour), [0, 0])
        counts[0] += int(admitted)
        counts[1] += int(refused)
        if admitted_at:
            _move(usage.keys_used, key_id, admitted_at)
        _move(usage.secrets_used, secret_id, seen_at)
    return usage


def _move(times: dict[_Id, datetime], which: _Id, seconds: float) -> None:
    """Keep the latest time of each key or secret."""
    at = datetime.fromtimestamp(seconds, UTC)
    times[which] = max(at, times.get(which, at))
