"""ReadQueue that somebody waits for, and not for long."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

MAX_WAITS = 3
"""How often a reading is waited for that has not begun yet, as long as others come to their end."""

PARTS = 4


class ReadQueue:
    """Runs each reading in a task of its own, some at once: who waits for one may give up at once.

    A connection that is given up needs a moment to be put in order; the task takes that moment, the request does not.
    Those that wait for their turn are patient while others end, which means that there is much to do; where nothing
    ends, they give up as soon as those whose turn it is.

    Use it from one event loop.

    Args:
        at_once: how many.
        ends_by_itself: whether a reading that nobody waits for any more is left to end; else it is cancelled.
    """

    def __init__(self, at_once: int, ends_by_itself: bool) -> None:
        self._gate = asyncio.Semaphore(at_once)
        self._ends_by_itself = ends_by_itself
        self._running: set[asyncio.Task[Any]] = set()
        self._ended = 0

    async def run(self, read: Callable[[], Coroutine[Any, Any, Result]], within_s: float) -> Result:
        """What the reading comes to.

        Args:
            read: called when it is its turn.
            within_s: seconds for the reading, and for those before it to show that they get on.

        Raises:
            TimeoutError: it did not come to its end in time, or not to its turn.
        """
        await self._take_turn(within_s)
        task = asyncio.create_task(read(), name="keyauth-reading")
        self._running.add(task)
        task.add_done_callback(self._end)
        try:
            # In parts, so that a standstill of this process uses up no more than one of them.
            for _ in range(PARTS):
                await asyncio.wait([task], timeout=within_s / PARTS)
                if task.done():
                    break
        except asyncio.CancelledError:
            # Whoever waited has gone away. Most readings are over in a moment, and their connection stays whole.
            self._cancel_after(within_s, task)
            raise
        if not task.done():
            self._cancel_after(0, task)
            raise TimeoutError(f"no answer within {within_s:g} s")
        if task.cancelled():  # by close: who waited was not
            raise TimeoutError("closed")
        return task.result()

    async def close(self) -> None:
        """End those that nobody waits for."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _take_turn(self, within_s: float) -> None:
        if not self._gate.locked():
            await self._gate.acquire()
            return
        turn = asyncio.create_task(self._gate.acquire(), name="keyauth-turn")
        has_come = False
        try:
            has_come = await self._waits_for(turn, within_s)
        finally:
            if not has_come and not turn.cancel():
                self._gate.release()  # it came in the very moment
        if not has_come:
            raise TimeoutError("too many wait for a connection")

    async def _waits_for(self, turn: asyncio.Task[Any], within_s: float) -> bool:
        """Whether the turn comes while others end."""
        for _ in range(MAX_WAITS):
            ended = self._ended
            if (await asyncio.wait([turn], timeout=within_s))[0]:
                return True
            if self._ended == ended:
                break
        return False

    def _cancel_after(self, seconds: float, task: asyncio.Task[Any]) -> None:
        if not self._ends_by_itself:
            asyncio.get_running_loop().call_later(seconds, task.cancel)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._gate.release()
        # Looking at the exception also tells asyncio that somebody did: perhaps nobody waits any more.
        if not task.cancelled() and task.exception() is None:
            self._ended += 1
