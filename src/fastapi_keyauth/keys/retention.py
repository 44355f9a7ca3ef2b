"""The schedule for deleting rows that are no longer needed."""

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from fastapi_keyauth.domain.usage import hour_of
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.store import PruneStore

PRUNE_EVERY_S = 3600.0
KEEP_OVER = timedelta(days=1)
"""Time for which an expired session is kept, so that complaints can be investigated."""


class Pruner:
    """Deletes about once an hour: one batch in each round of the periodic tasks until no more rows are found.

    Args:
        store: Deletes the rows.
        usage_hours_kept: The setting.
        now: Returns the current time, UTC.
        monotonic: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        store: PruneStore,
        usage_hours_kept: int,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._usage_hours_kept = usage_hours_kept
        self._now = now
        self._monotonic = monotonic
        self._due_at = 0.0

    def start(self) -> None:
        """Schedule the first round: at different times for workers that start together, and never in a short script."""
        # Not a secret: it spreads the work.
        self._due_at = self._monotonic() + random.uniform(60, PRUNE_EVERY_S)  # noqa: S311

    async def prune_when_due(self) -> None:
        """Delete one batch if a round is due."""
        if self._monotonic() < self._due_at:
            return
        now = self._now()
        try:
            more = await self._store.prune(now - KEEP_OVER, hour_of(now) - self._usage_hours_kept)
        except StoreUnavailable:
            return  # logged where it happens; the next round tries again
        if not more:
            self._due_at = self._monotonic() + PRUNE_EVERY_S
