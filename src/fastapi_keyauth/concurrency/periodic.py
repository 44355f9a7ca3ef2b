"""What a worker does every few seconds, beside the requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger("fastapi_keyauth")


class PeriodicTasks:
    """Calls each of its tasks every few seconds, one after another, whatever happens to any of them.

    Args:
        every_s: seconds between two rounds.
        tasks: what is to be done.
    """

    def __init__(self, every_s: float, *tasks: Callable[[], Awaitable[None]]) -> None:
        self._every_s = every_s
        self._works = tasks
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in this event loop."""
        self._task = asyncio.create_task(self._run(), name="keyauth-housekeeping")

    async def close(self) -> None:
        """End, in the middle of a work if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for work in self._works:
                try:
                    await work()
                except Exception:  # whatever it was, the next work and the next round must come; it is in the log
                    logger.exception(
                        "housekeeping failed, will try again", extra={"keyauth_event": "housekeeping_failed"}
                    )
