"""Waiting for as long as agreed, and not giving up because this process stood still meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICKS = 4
"""Parts in which the time is counted. However many pass while the event loop stands still, they count as one: the
server may have answered all along, and a connection takes several turns to make. Else a worker that was held up for
longer than the timeout (a blocking call of the application, a busy machine) would take it for an outage of Redis."""


@asynccontextmanager
async def stall_tolerant_timeout(seconds: float) -> AsyncIterator[None]:
    """As ``asyncio.timeout``, the time counted in parts; see ``TICKS`` for why.

    Raises:
        TimeoutError: it is over.
    """
    loop = asyncio.get_running_loop()
    ticks_left = TICKS
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal ticks_left, timer
        ticks_left -= 1
        if ticks_left:
            timer = loop.call_later(seconds / TICKS, tick)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds / TICKS, tick)
        try:
            yield
        finally:
            timer.cancel()
