"""A fair semaphore: limits concurrency and serves waiting owners in turn."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class TooManyWaiting(Exception):
    """Too many callers are waiting already."""


class _Waiter(NamedTuple):
    turn: asyncio.Future[None]
    lane: str


class FairSemaphore:
    """A semaphore whose waiters are served owner by owner, so that a crowd of one owner delays no other owner.

    Waiters may be divided into lanes. Lanes share the turns, but each has its own bounds, so a full lane does not
    affect the others. Waiters without an owner take turns with the owners, but no bound applies to them, and they count
    towards none. Use it from one event loop.

    Args:
        max_concurrent: Maximum number of holders.
        max_waiting: Maximum number of waiters in one lane.
        max_waiting_per_owner: Maximum number of waiters of one owner in one lane.
    """

    def __init__(self, max_concurrent: int, max_waiting: int, max_waiting_per_owner: int) -> None:
        self._free = max_concurrent
        self._max_waiting = max_waiting
        self._max_waiting_per_owner = max_waiting_per_owner
        self._waiting: OrderedDict[str | None, deque[_Waiter]] = OrderedDict()
        """Owner to waiters, the next owner and its next waiter first. Never an empty queue."""
        self._by_lane: Counter[str] = Counter()
        self._by_owner_and_lane: Counter[tuple[str | None, str]] = Counter()

    @asynccontextmanager
    async def slot(self, owner: str | None, *, lane: str = "") -> AsyncIterator[None]:
        """Hold the semaphore for as long as the block runs.

        Args:
            owner: The owner on whose behalf it is held. None: without bounds.
            lane: The lane to wait in.

        Raises:
            TooManyWaiting: If too many already wait in this lane, of this owner or in total.
        """
        await self.acquire(owner, lane=lane)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, owner: str | None, *, lane: str = "") -> None:
        """Acquire the semaphore. Each call requires one of ``release``; see ``slot`` for a context manager.

        Args:
            owner: The owner on whose behalf it is held. None: without bounds.
            lane: The lane to wait in.

        Raises:
            TooManyWaiting: If too many already wait in this lane, of this owner or in total.
        """
        if self._free > 0:  # then there are no waiters
            self._free -= 1
            return
        if owner is not None and self._is_full(owner, lane):
            raise TooManyWaiting
        waiter = _Waiter(asyncio.get_running_loop().create_future(), lane)
        self._waiting.setdefault(owner, deque()).append(waiter)
        self._count(owner, lane, 1)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._leave(owner, waiter)
            else:
                self.release()  # it was acquired in the same moment
            raise

    def release(self) -> None:
        """Release the semaphore. The next waiter of the next owner acquires it."""
        while self._waiting:
            owner, waiting = self._waiting.popitem(last=False)
            waiter = waiting.popleft()
            self._count(owner, waiter.lane, -1)
            if waiting:
                self._waiting[owner] = waiting  # behind all others
            if not waiter.turn.done():  # otherwise it was cancelled and had no time to leave
                waiter.turn.set_result(None)
                return
        self._free += 1

    def _is_full(self, owner: str, lane: str) -> bool:
        return (
            self._by_lane[lane] >= self._max_waiting
            or self._by_owner_and_lane[owner, lane] >= self._max_waiting_per_owner
        )

    def _leave(self, owner: str | None, waiter: _Waiter) -> None:
        waiting = self._waiting.get(owner, ())
        if waiter in waiting:
            self._waiting[owner].remove(waiter)
            self._count(owner, waiter.lane, -1)
            if not self._waiting[owner]:
                del self._waiting[owner]

    def _count(self, owner: str | None, lane: str, change: int) -> None:
        if owner is None:
            return
        self._by_lane[lane] += change
        self._by_owner_and_lane[owner, lane] += change
        if not self._by_owner_and_lane[owner, lane]:
            del self._by_owner_and_lane[owner, lane]  # owners come and go, lanes are few
