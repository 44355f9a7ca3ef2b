"""When to delete what nobody can ask for any more."""

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from fastapi_keyauth.domain.pagination import MAX_USAGE_HOURS
from fastapi_keyauth.domain.units import HOUR_S
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.store import PruneStore

PRUNE_EVERY_S = 3600.0
KEEP_OVER = timedelta(days=1)
"""For how long a session stays that has expired: whoever looks into a complaint still finds it."""
KEEP_USAGE_HOURS = MAX_USAGE_HOURS + 24
"""What the usage routes show, and a day more for clocks and questions."""


class Pruner:
    """Prunes about once an hour, a batch in each round of the housekeeping until nothing is left.

    Args:
        store: has the rows.
        now: the time, UTC.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self, store: PruneStore, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._due_at = 0.0

    def start(self) -> None:
        """Begin to wait. Workers that start together prune at different times, and a short script not at all."""
        # Nothing that is secret: it spreads the work.
        self._due_at = self._monotonic() + random.uniform(60, PRUNE_EVERY_S)  # noqa: S311

    async def prune_when_due(self) -> None:
        """Delete one batch if it is time."""
        if self._monotonic() < self._due_at:
            return
        now = self._now()
        try:
            more = await self._store.prune(now - KEEP_OVER, int(now.timestamp()) // HOUR_S - KEEP_USAGE_HOURS)
        except StoreUnavailable:
            return  # logged where it happens; the next round tries again
        if not more:
            self._due_at = self._monotonic() + PRUNE_EVERY_S
