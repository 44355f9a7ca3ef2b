"""Timeouts that do not count the time in which this process stood still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TICKS = 8
"""Parts in which a timeout is counted. However many of them pass while the event loop stands still, they count as one:
the server may have answered all along, and a connection needs several turns of the loop. Otherwise a worker that was
held up for longer than the timeout (a blocking call of the application, a busy machine) would take that for an outage.
"""


class StallTolerantTimer:
    """A timer that calls back after some seconds, unless it is stopped or restarted before.

    It is cheap to restart: one that is restarted all the time costs no more than one timer of the event loop per tick.
    In return the first tick after a restart may be shorter than the others.

    Args:
        callback: What to call.
    """

    __slots__ = ("_callback", "_handle", "_loop", "_tick_s", "_ticks_left")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._tick_s = 0.0
        self._ticks_left = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Start or restart the timer.

        Args:
            seconds: Time until the callback, not counting time in which the event loop stood still.
        """
        self._tick_s = seconds / TICKS
        self._ticks_left = TICKS
        if self._handle is not None and self._handle.when() > self._loop.time() + self._tick_s:
            self._handle.cancel()  # it belongs to a longer timeout
            self._handle = None
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
        TimeoutError: If the time has elapsed.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = StallTolerantTimer(lambda: limit.reschedule(loop.time()))
        timer.start(seconds)
        try:
            yield
        finally:
            timer.cancel()
