"""The transactional outbox: notifies all workers of changes to keys, and retries until that has succeeded.

The transaction of a change inserts a row into ``keyauth_changes``. Announcing it replaces the generation of the key in
Redis and deletes the row. If Redis is unreachable, or the worker is killed in between, the row stays, and the next
worker that polls announces it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.errors import ChangePending, LimiterUnavailable, StoreUnavailable
from fastapi_keyauth.limiter import Limiter
from fastapi_keyauth.limiter.protocol import Unsettled
from fastapi_keyauth.store import PendingChangeStore

logger = logging.getLogger("fastapi_keyauth")

POLL_INTERVAL_S = 2.0
HOLDS_WITHIN_S = 10
"""Seconds within which a change takes effect on all workers although it could not be announced immediately: any worker
that reaches Redis and the database polls every ``POLL_INTERVAL_S``, and one that does not reach Redis reads each key's
row."""
KEEP = timedelta(days=1)
"""How long a process without Redis keeps its announcements for workers that use Redis. They may not reach the database
for as long; if they missed an announcement, a revoked key would stay admitted."""
FORGET_EVERY = timedelta(hours=1)
_BATCH = 500


class Outbox:
    """Announces changes; see the module.

    Args:
        limiter: Replaces generations.
        store: Store of the rows.
        is_shared: Whether the limiter is shared by all workers (Redis). If it is this process's own, rows are kept for
            ``KEEP``: a script without ``redis_url`` may work on the database of an API that uses Redis.
        now: Returns the current time, UTC.
    """

    def __init__(
        self, limiter: Limiter, store: PendingChangeStore, is_shared: bool, now: Callable[[], datetime]
    ) -> None:
        self._limiter = limiter
        self._store = store
        self._is_shared = is_shared
        self._now = now
        self._unannounced: set[tuple[str, str]] = set()
        self._log_throttle = LogThrottle()
        self._forget_at = now() + FORGET_EVERY  # a short script deletes nothing

    async def publish(self, key_id: str, owner_id: str, pending: int | None) -> None:
        """Announce one change.

        Args:
            key_id: The key; "" for a change of the owner, which concerns all its keys.
            owner_id: The owner.
            pending: The row that waits for the announcement.

        Raises:
            ChangePending: If the change is stored but not yet announced.
        """
        try:
            await self._bump(key_id, owner_id)
        except LimiterUnavailable as error:
            # An outage is logged where it is noticed.
            if isinstance(error, Unsettled) and self._log_throttle.allow() is not None:
                logger.warning(
                    "changes to keys get a 503 and are announced later: %s",
                    error,
                    extra={"keyauth_event": "change_unsettled", "key_id": key_id, "reason": str(error)},
                )
            # The row survives this worker; this set survives an outage of the database.
            self._unannounced.add((key_id, owner_id))
            raise ChangePending(HOLDS_WITHIN_S) from None
        if pending is not None and self._is_shared:
            try:
                await self._store.delete([pending])
            except StoreUnavailable:
                logger.info(
                    "an announced change could not be deleted and will be announced again",
                    extra={"keyauth_event": "change_noted", "key_id": key_id},
                )

    async def publish_owners(self, pending: Mapping[str, int]) -> None:
        """Announce the changes of owners: owner to the row that waits for its announcement.

        Raises:
            ChangePending: If some could not be announced. All were tried.
        """
        # Concurrently, since each may have to wait for leases to end.
        await _gather(self.publish("", owner_id, row_id) for owner_id, row_id in pending.items())

    async def drain(self) -> None:
        """Announce pending changes, also those of other workers. Repeating one is harmless: the row is read again."""
        try:
            await _gather(self._announce_late(*changed) for changed in list(self._unannounced))
            if not self._is_shared:
                await self._store.find(1)  # an outage is noticed without any request
                await self._forget_when_due(self._now())
                return
            is_last = False
            while not is_last:  # all of them, or the last would take effect later than ``HOLDS_WITHIN_S``
                changes = await self._store.find(_BATCH)
                is_last = len(changes) < _BATCH
                await _gather(self._bump(*changed) for changed in {changed[1:] for changed in changes})
                if changes:
                    await self._store.delete([row_id for row_id, _, _ in changes])
        except (LimiterUnavailable, StoreUnavailable):
            return  # both are logged where they happen, and the rows are still there

    async def _announce_late(self, key_id: str, owner_id: str) -> None:
        await self._bump(key_id, owner_id)
        self._unannounced.discard((key_id, owner_id))

    async def _bump(self, key_id: str, owner_id: str) -> None:
        if key_id:
            await self._limiter.bump_generation(key_id, owner_id)
        else:
            await self._limiter.bump_owner_generation(owner_id)

    async def _forget_when_due(self, now: datetime) -> None:
        if now >= self._forget_at:
            await self._store.delete_before(now - KEEP)
            self._forget_at = now + FORGET_EVERY


async def _gather(announcements: Iterable[Awaitable[None]]) -> None:
    """Wait for all of them, then raise the first error."""
    for outcome in await asyncio.gather(*announcements, return_exceptions=True):
        if outcome is not None:
            raise outcome
