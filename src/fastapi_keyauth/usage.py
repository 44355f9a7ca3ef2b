"""Counts what happened, in memory, and hands it to the store in batches: nothing is written per request."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.records import StoredKey
from fastapi_keyauth.store import Usage, UsageStore

logger = logging.getLogger("fastapi_keyauth")

FLUSH_WAIT_S = 0.5
MAX_COUNTS = 200_000  # (key, hour) pairs kept while the database is away


def _no_usage() -> Usage:
    return Usage(counts={}, keys_used={}, secrets_used={})


class UsageRecorder:
    """Usage by key and hour, last-used times by key and secret.

    Args:
        store: where it goes.
        now: the time, UTC.
    """

    def __init__(self, store: UsageStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._pending = _no_usage()
        self._lock = asyncio.Lock()

    def admitted(self, key: StoredKey, hour: int) -> None:
        """A unit was used."""
        self._count(key.id, hour, 0)
        now = self._now()
        self._pending.keys_used[key.id] = now
        self._pending.secrets_used[key.secret_id] = now

    def refused(self, key: StoredKey, hour: int) -> None:
        """The right secret was sent and no unit was used."""
        self._count(key.id, hour, 1)

    def _count(self, key_id: str, hour: int, which: int) -> None:
        counts = self._pending.counts
        row = counts.get((key_id, hour))
        if row is None:
            if len(counts) >= MAX_COUNTS:
                return
            row = counts[key_id, hour] = [0, 0]
        row[which] += 1

    def start(self) -> None:
        """Get ready in this event loop."""
        self._lock = asyncio.Lock()

    async def flush_soon(self) -> None:
        """As :meth:`flush`, but wait for it only a moment: a reader can do without the last few requests."""
        await asyncio.wait([asyncio.create_task(self.flush())], timeout=FLUSH_WAIT_S)

    def count_lost(self) -> int:
        """Keys whose usage is still unwritten."""
        return len({key_id for key_id, _ in self._pending.counts})

    async def flush(self) -> None:
        """Write what has come together. Where the database is away it is kept for the next time."""
        # A flush that is cancelled half way must not leave in doubt what was written: the writing itself goes on.
        await asyncio.shield(asyncio.create_task(self._flush(), name="keyauth-usage"))

    async def _flush(self) -> None:
        async with self._lock:
            usage = self._pending
            if not usage.counts and not usage.keys_used:
                return
            self._pending = _no_usage()
            try:
                await self._store.add(usage)
            except StoreUnavailable:
                self._take_back(usage)
            except BaseException:
                self._take_back(usage)
                raise

    def _take_back(self, usage: Usage) -> None:
        newer = self._pending
        for name, (admitted, refused) in newer.counts.items():
            row = usage.counts.setdefault(name, [0, 0])
            row[0] += admitted
            row[1] += refused
        usage.keys_used |= newer.keys_used
        usage.secrets_used |= newer.secrets_used
        self._pending = usage
