"""How tests wait: for a fact and never for a time, and not for ever."""

import asyncio
from collections.abc import Awaitable, Callable

HANG_S = 30.0
"""A guard against hanging, long enough for a busy machine."""
POLL_INTERVAL_S = 0.02


async def until(
    condition: Callable[[], bool | Awaitable[bool]], within_s: float = HANG_S, every_s: float = POLL_INTERVAL_S
) -> None:
    """Look again and again until the condition holds: for what comes by itself, in a task or in another process.

    Raises TimeoutError where it does not hold within so many seconds, which are a guard against hanging unless a test
    has a promise to hold them against. `tests.helpers.processes.wait_until` is the same for code without an event loop.
    """
    async with asyncio.timeout(within_s):
        while not await _holds(condition):  # noqa: ASYNC110  # nothing that it waits for sets an event
            await asyncio.sleep(every_s)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return found if isinstance(found, bool) else await found
