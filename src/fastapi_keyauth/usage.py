"""Counts what happened, in memory, and hands it to the store in batches: nothing is written per request."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.records import StoredKey
from fastapi_keyauth.store import Usage, UsageStore

logger = logging.getLogger("fastapi_keyauth")

FLUSH_WAIT_S = 0.5
MAX_COUNTS = 200_000  # (secret, hour) pairs kept while the database is away

Rows = dict[tuple[str, int, int], list[float]]
"""(key id, secret id, hours since 1970) -> [admitted, refused, last used in seconds since 1970]."""


class UsageRecorder:
    """Usage by key and hour, last-used times by key and secret.

    Args:
        store: where it goes.
        clock: seconds since 1970.
    """

    def __init__(self, store: UsageStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._pending: Rows = {}
        self._lock = asyncio.Lock()

    def admitted(self, key: StoredKey, hour: int) -> None:
        """A unit was used."""
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        row[0] += 1
        row[2] = self._clock()

    def refused(self, key: StoredKey, hour: int) -> None:
        """The right secret was sent and no unit was used."""
        row = self._pending.get((key.id, key.secret_id, hour)) or self._new_row(key, hour)
        row[1] += 1

    def _new_row(self, key: StoredKey, hour: int) -> list[float]:
        row: list[float] = [0, 0, 0]
        if len(self._pending) < MAX_COUNTS:
            self._pending[key.id, key.secret_id, hour] = row
        return row

    def start(self) -> None:
        """Get ready in this event loop."""
        self._lock = asyncio.Lock()

    async def flush_soon(self) -> None:
        """As :meth:`flush`, but wait for it only a moment: a reader can do without the last few requests."""
        await asyncio.wait([asyncio.create_task(self.flush())], timeout=FLUSH_WAIT_S)

    def count_lost(self) -> int:
        """Keys whose usage is still unwritten."""
        return len({key_id for key_id, _, _ in self._pending})

    async def flush(self) -> None:
        """Write what has come together. Where the database is away it is kept for the next time."""
        # A flush that is cancelled half way must not leave in doubt what was written: the writing itself goes on.
        await asyncio.shield(asyncio.create_task(self._flush(), name="keyauth-usage"))

    async def _flush(self) -> None:
        async with self._lock:
            rows = self._pending
            if not rows:
                return
            self._pending = {}
            try:
                await self._store.add(_sum_up(rows))
            except StoreUnavailable:
                self._take_back(rows)
            except BaseException:
                self._take_back(rows)
                raise

    def _take_back(self, rows: Rows) -> None:
        for name, (admitted, refused, used_at) in self._pending.items():
            row = rows.setdefault(name, [0, 0, 0])
            row[0] += admitted
            row[1] += refused
            row[2] = max(row[2], used_at)
        self._pending = rows


def _sum_up(rows: Rows) -> Usage:
    """Counts by key and hour, and the last use of each key and each secret."""
    usage = Usage(counts={}, keys_used={}, secrets_used={})
    for (key_id, secret_id, hour), (admitted, refused, used_at) in rows.items():
        counts = usage.counts.setdefault((key_id, hour), [0, 0])
        counts[0] += int(admitted)
        counts[1] += int(refused)
        if used_at:
            at = datetime.fromtimestamp(used_at, UTC)
            usage.keys_used[key_id] = max(at, usage.keys_used.get(key_id, at))
            usage.secrets_used[secret_id] = max(at, usage.secrets_used.get(secret_id, at))
    return usage
