"""Taking turns: so many at once, and where several owners wait, one of each in turn."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TooManyWaiting(Exception):
    """So many wait already that it makes no sense to wait."""


class FairSemaphore:
    """At most ``at_once`` at a time. The rest wait, and the owners take turns: a crowd of one delays nobody else.

    Use it from one event loop.

    Args:
        at_once: how many.
        max_waiting: of all owners together.
        max_waiting_of_one: of one owner.
    """

    def __init__(self, at_once: int, max_waiting: int, max_waiting_of_one: int) -> None:
        self._free = at_once
        self._max_waiting = max_waiting
        self._max_waiting_of_one = max_waiting_of_one
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By owner, who is next first. No queue is empty."""
        self._count = 0

    @asynccontextmanager
    async def slot(self, owner: str, *, bypass_limit: bool = False) -> AsyncIterator[None]:
        """A turn, for as long as the context lasts.

        Args:
            owner: on whose behalf.
            bypass_limit: wait however many do already.

        Raises:
            TooManyWaiting: too many wait already, of this owner or of all.
        """
        await self.acquire(owner, bypass_limit=bypass_limit)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, owner: str, *, bypass_limit: bool = False) -> None:
        """As ``of``, until ``release`` is called."""
        if self._free > 0:  # then nobody waits
            self._free -= 1
            return
        waiting = self._waiting.get(owner)
        if not bypass_limit and (
            self._count >= self._max_waiting or (waiting is not None and len(waiting) >= self._max_waiting_of_one)
        ):
            raise TooManyWaiting
        if waiting is None:
            waiting = self._waiting[owner] = deque()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._count += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(owner, turn)
            else:
                self.release()  # its turn came in the same moment
            raise

    def release(self) -> None:
        """The turn is over; the next one's begins."""
        while self._waiting:
            owner, waiting = self._waiting.popitem(last=False)
            turn = waiting.popleft()
            self._count -= 1
            if waiting:
                self._waiting[owner] = waiting  # behind all others
            if not turn.done():  # else it was cancelled and had no time to leave
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, owner: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(owner, ())
        if turn in waiting:
            self._waiting[owner].remove(turn)
            self._count -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]
