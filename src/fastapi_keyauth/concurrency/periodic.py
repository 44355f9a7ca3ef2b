"""Periodic background tasks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger("fastapi_keyauth")


class PeriodicTasks:
    """Calls its tasks one after another, again and again. An error of one does not stop the others.

    Args:
        every_s: Seconds between two rounds.
        tasks: The tasks, in their order.
    """

    def __init__(self, every_s: float, *tasks: Callable[[], Awaitable[None]]) -> None:
        self._every_s = every_s
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start in the running event loop."""
        self._task = asyncio.create_task(self._run(), name="keyauth-housekeeping")

    async def close(self) -> None:
        """Stop. A task that is running is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for task in self._tasks:
                try:
                    await task()
                except Exception:  # the other tasks and the next round must still run; the log has the error
                    logger.exception("housekeeping failed; retrying", extra={"keyauth_event": "housekeeping_failed"})
