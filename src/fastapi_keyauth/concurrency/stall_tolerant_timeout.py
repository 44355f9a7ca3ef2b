"""Timeouts that do not count the time in which this process stood still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TICKS = 4
"""Parts in which a timeout is counted. However many of them pass while the event loop stands still, they count as one:
the server may have answered all along, and a connection needs several turns of the loop. Otherwise a worker that was
held up for longer than the timeout (a blocking call of the application, a busy machine) would take that for an outage.
"""


class StallTolerantTimer:
    """A timer that calls back after a number of ticks.

    It is cheap to restart: one that is restarted all the time costs no more than one timer of the event loop per tick.

    Args:
        tick_s: Seconds per tick. Ticks that the event loop missed are not made up for.
        callback: Called once per start, unless the timer is stopped or restarted before.
    """

    __slots__ = ("_callback", "_handle", "_loop", "_tick_s", "_ticks_left")

    def __init__(self, tick_s: float, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._callback = callback
        self._ticks_left = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self, ticks: int = TICKS) -> None:
        """Start or restart the timer. If it was running or just stopped, the first tick may be shorter than the others.

        Args:
            ticks: Number of ticks until the callback, at least 1.
        """
        self._ticks_left = ticks
        if self._handle is None:
            self._handle = self._loop.call_later(self._tick_s, self._tick)

    def stop(self) -> None:
        """Prevent the callback. The timer of the event loop ends by itself at the next tick."""
        self._ticks_left = 0

    def cancel(self) -> None:
        """Prevent the callback, and release the timer of the event loop."""
        self._ticks_left = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self._handle = None
        if not self._ticks_left:
            return
        self._ticks_left -= 1
        if self._ticks_left:
            self._handle = self._loop.call_later(self._tick_s, self._tick)
        else:
            self._callback()


@asynccontextmanager
async def stall_tolerant_timeout(seconds: float) -> AsyncIterator[None]:
    """Limit the time of a block, as ``asyncio.timeout`` does, counted in parts; see ``TICKS`` for the reason.

    Args:
        seconds: Maximum duration, not counting time in which the event loop stood still.

    Raises:
        TimeoutError: If the time is over.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = StallTolerantTimer(seconds / TICKS, lambda: limit.reschedule(loop.time()))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
