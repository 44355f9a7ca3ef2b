"""Closing of days: the counts in Redis are written to the database, then the day becomes final."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.domain.usage import HOURS_OF_DAY, UsageOf, date_of, day_number
from fastapi_keyauth.errors import LimiterUnavailable, StoreUnavailable, TemporarilyUnavailable
from fastapi_keyauth.limiter import Limiter
from fastapi_keyauth.store import UsageDayStore, UsageStore
from fastapi_keyauth.store.usage_days import OpenDays

logger = logging.getLogger("fastapi_keyauth")

CLOSE_AFTER_S = 300
"""Seconds from the end of a day until it may be closed. By then every worker has written what it counted itself, and
clocks that differ agree that the day is over."""
PAGE = 500
"""Number of keys whose counts are written together."""
LEASE = timedelta(seconds=30)
"""Time for which a worker that prepares a closing excludes the others. It renews the lease; if it is killed, another
worker takes over when the lease ends."""
DELAYS_EVERY_S = 600.0
"""Seconds between log lines about a day that cannot be closed yet."""


class DayCloser:
    """Closes each day once, on whichever worker begins first.

    A day stays open while the database or Redis is unavailable, because the admitted units are unknown then.

    Args:
        days: Store of closed days.
        usage: Writes counts.
        limiter: The limiter that counted the admitted units.
        now: The time, UTC, which decides when a day is over.
        lease_now: The time, UTC, for leases.
    """

    def __init__(
        self,
        days: UsageDayStore,
        usage: UsageStore,
        limiter: Limiter,
        now: Callable[[], datetime],
        lease_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._days = days
        self._usage = usage
        self._limiter = limiter
        self._now = now
        self._lease_now = lease_now
        self._open: OpenDays | None = None
        self._task: asyncio.Task[None] | None = None
        self._leased_until: datetime | None = None
        self._delays = LogThrottle(DELAYS_EVERY_S)

    async def start_when_due(self) -> None:
        """Start closing in a task of its own if a day is over: the other periodic tasks must not wait for it."""
        if self._open is not None and self._open.open_day >= self._first_unfinished_day():
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._close_logged(), name="keyauth-usage-days")

    async def close(self) -> None:
        """Stop. What is unfinished is done by another worker, or after the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _close_logged(self) -> None:
        try:
            await self.close_due_days()
        except StoreUnavailable:
            return  # logged where it happens
        except Exception:  # the next round must still run; the log has the error
            logger.exception("closing usage failed; retrying", extra={"keyauth_event": "usage_closing_failed"})

    async def close_due_days(self) -> None:
        """Close all days that are over.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        self._open = await self._days.find_open()
        if self._open is None:
            return  # nothing was counted yet
        day, due = self._open.open_day, self._first_unfinished_day()
        if day >= due or not await self._hold_lease(day):
            return
        try:
            if self._limiter.counts_usage and not await self._move_counts(day):
                return  # another worker goes on, or has closed the day
        except LimiterUnavailable as error:
            self._report_delay(date_of(day), error)
            await self._release_lease(day)
            return
        while day < due:
            await self._days.close_day(day)
            day += 1
        self._open = await self._days.find_open()

    async def _move_counts(self, day: int) -> bool:
        """Write the counts of all keys in Redis, since workers that were killed may have left some unread.

        Returns:
            False if the lease was lost before all counts were written.
        """
        async for page in self._pages():
            # Earlier hours are in closed days, so Redis may delete them.
            await self._move(page, day * HOURS_OF_DAY)
            if not await self._hold_lease(day):
                return False
        return True

    async def move_counts_of(self, owner_id: str) -> None:
        """Write the counts in Redis of all keys of an owner that is about to be erased.

        If Redis is unavailable, a log line says that the usage may be incomplete.

        On a cluster, the counts of a key are found by the id of its owner.
        """
        if not self._limiter.counts_usage:
            return
        try:
            async for page in self._pages(owner_id):
                await self._move(page, 0)
        except LimiterUnavailable:
            logger.warning(
                "usage of an erased owner may be incomplete: redis is unavailable",
                extra={"keyauth_event": "usage_unread"},
            )

    async def _pages(self, owner_id: str | None = None) -> AsyncIterator[Sequence[UsageOf]]:
        after = ""
        while True:
            page = await self._days.find_keys(after, PAGE, owner_id)
            yield page
            if len(page) < PAGE:
                return
            after = page[-1].key_id

    async def _move(self, page: Sequence[UsageOf], forget_before: int) -> None:
        counts = await self._limiter.read_usage(page, forget_before)
        if counts:
            await self._usage.set_counts(counts, self._now())

    async def _hold_lease(self, day: int) -> bool:
        """Take the lease, or renew it in time. Return whether this worker has it."""
        now = self._lease_now()
        held_until = self._leased_until
        if held_until is not None and now < held_until - LEASE / 2:
            return True
        is_ours = await self._days.lease(day, now, now + LEASE, held_until)
        self._leased_until = now + LEASE if is_ours else None
        return is_ours

    async def _release_lease(self, day: int) -> None:
        """End the lease, so that a worker that reaches Redis can continue."""
        now = self._lease_now()
        held_until, self._leased_until = self._leased_until, None
        await self._days.lease(day, now, now, held_until)

    def _report_delay(self, day: date, error: TemporarilyUnavailable) -> None:
        if self._delays.allow() is not None:
            logger.warning(
                "usage of %s is not closed yet: redis is unavailable (%s)",
                day,
                error,
                extra={"keyauth_event": "usage_delayed", "reason": str(error)},
            )

    def _first_unfinished_day(self) -> int:
        """Return the first day that must not be closed yet, in days since 1970."""
        return day_number((self._now() - timedelta(seconds=CLOSE_AFTER_S)).date())
