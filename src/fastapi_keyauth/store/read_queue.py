"""The queue of reads that requests wait for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi_keyauth.concurrency.stall_tolerant_timeout import stall_tolerant_timeout

Result = TypeVar("Result")

MAX_WAITS = 3
"""How often a request waits for its turn, as long as other reads complete meanwhile."""


class ReadQueue:
    """Limits concurrent reads, and runs each in a task of its own, so that a request can stop waiting immediately.

    A connection whose read is abandoned takes a moment to clean up. The task spends that moment, the request does not.
    Requests that wait for their turn keep waiting while other reads complete, which shows that the database is only
    busy. If no read completes, they time out like those that are running.

    The turns are first come, first served: the owner of a key is known only after its row was read, so owners cannot
    take turns here.

    Use it from one event loop.

    Args:
        max_concurrent: Maximum number of concurrent reads.
        cancel_abandoned: Whether a read that no request waits for any more is cancelled. Otherwise it completes.
    """

    def __init__(self, max_concurrent: int, cancel_abandoned: bool) -> None:
        self._gate = asyncio.Semaphore(max_concurrent)
        self._cancel_abandoned = cancel_abandoned
        self._running: set[asyncio.Task[Any]] = set()
        self._completed = 0

    async def run(self, read: Callable[[], Coroutine[Any, Any, Result]], within_s: float) -> Result:
        """Return the result of a read.

        Args:
            read: Called when its turn has come.
            within_s: Seconds for the read, and for other reads to complete while this one waits for its turn.

        Raises:
            TimeoutError: If the read took too long, or its turn did not come.
        """
        await self._take_turn(within_s)
        task = asyncio.create_task(read(), name="keyauth-reading")
        self._running.add(task)
        task.add_done_callback(self._end)
        try:
            async with stall_tolerant_timeout(within_s):
                await asyncio.wait([task])  # which does not cancel the task
        except asyncio.CancelledError:
            # The client has disconnected. Most reads complete soon, and their connection stays usable.
            self._cancel_after(within_s, task)
            raise
        except TimeoutError:
            self._cancel_after(0, task)
            raise TimeoutError(f"no answer within {within_s:g} s") from None
        if task.cancelled():  # by close
            raise TimeoutError("closed")
        return task.result()

    async def close(self) -> None:
        """Cancel all reads that are still running."""
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
                self._gate.release()  # the turn came in the same moment
        if not has_come:
            raise TimeoutError("too many wait for a connection")

    async def _waits_for(self, turn: asyncio.Task[Any], within_s: float) -> bool:
        """Return whether the turn comes while other reads complete."""
        for _ in range(MAX_WAITS):
            completed = self._completed
            if (await asyncio.wait([turn], timeout=within_s))[0]:
                return True
            if self._completed == completed:
                break
        return False

    def _cancel_after(self, seconds: float, task: asyncio.Task[Any]) -> None:
        if self._cancel_abandoned:
            asyncio.get_running_loop().call_later(seconds, task.cancel)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._gate.release()
        # Reading the exception also keeps asyncio from logging it if no request waits any more.
        if not task.cancelled() and task.exception() is None:
            self._completed += 1
