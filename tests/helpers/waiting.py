"""Waiting for a condition, never for a fixed time, and with a limit."""

import asyncio
from collections.abc import Awaitable, Callable

HANG_S = 30.0
"""A guard against hanging, long enough for a busy machine."""
POLL_INTERVAL_S = 0.02


async def until(
    condition: Callable[[], bool | Awaitable[bool]], within_s: float = HANG_S, every_s: float = POLL_INTERVAL_S
) -> None:
    """Poll until the condition holds, for conditions that a task or another process brings about.

    Raise TimeoutError if it does not hold within ``within_s`` seconds. The default only guards against hanging; tests
    of a promised time pass their own. `tests.helpers.processes.wait_until` is the version for code without an event
    loop.
    """
    async with asyncio.timeout(within_s):
        while not await _holds(condition):  # noqa: ASYNC110  # nothing that it waits for sets an event
            await asyncio.sleep(every_s)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return found if isinstance(found, bool) else await found
