"""The ``on_event`` hook, which no request ever waits for.

Events wait in a bounded queue. One task delivers them in their order, so a hook is never called concurrently. A plain
function is called in a thread of its own, so it may block. An exception of the hook is logged. Events that the hook is
too slow for are dropped and counted.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.domain.events import AuthEvent
from fastapi_keyauth.telemetry.counters import Counters

logger = logging.getLogger("fastapi_keyauth")

MAX_WAITING = 1000
"""Maximum number of events that wait for the hook; further ones are dropped."""
CLOSE_WAIT_S = 2.0
"""Seconds that a stop waits for the hook to take the waiting events."""

OnEvent = Callable[[AuthEvent], Awaitable[None] | None]
"""A function, or a coroutine function."""


class EventDispatcher:
    """Delivers events to a user's callable; see the module.

    Args:
        on_event: The callable.
        counters: Counters of dropped events.
    """

    def __init__(self, on_event: OnEvent, counters: Counters) -> None:
        self._call = on_event
        is_async = inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(
            getattr(on_event, "__call__", None)  # noqa: B004  # an object with `async def __call__`, not a test
        )
        self._is_async = is_async
        self._counters = counters
        self._waiting: deque[AuthEvent] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._drops = LogThrottle()
        self._failures = LogThrottle()

    def emit(self, event: AuthEvent) -> None:
        """Put an event into the queue. It never waits and never raises."""
        if len(self._waiting) >= MAX_WAITING:
            self._drop(1)
            return
        self._waiting.append(event)
        self._wake.set()

    def start(self) -> None:
        """Start to deliver events, in this event loop."""
        self._is_closing = False
        self._wake = asyncio.Event()
        self._wake.set()
        if not self._is_async:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="keyauth-on-event")
        self._task = asyncio.create_task(self._run(), name="keyauth-on-event")

    async def close(self) -> None:
        """Deliver the waiting events for at most ``CLOSE_WAIT_S``; drop the rest."""
        task, self._task = self._task, None
        if task is None:
            return
        self._is_closing = True
        self._wake.set()
        await asyncio.wait([task], timeout=CLOSE_WAIT_S)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._waiting:
            self._drop(len(self._waiting))
            self._waiting.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            if self._is_closing:
                return

    async def _deliver(self, event: AuthEvent) -> None:
        try:
            outcome: Any
            if self._is_async:
                outcome = self._call(event)
            else:
                outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._call, event)
            if inspect.isawaitable(outcome):
                await outcome
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._log_failure(event, error)  # the hook's own: something that it waited for was cancelled
        except Exception as error:
            self._log_failure(event, error)

    def _log_failure(self, event: AuthEvent, error: BaseException) -> None:
        suppressed = self._failures.allow()
        if suppressed is not None:
            logger.error(
                "on_event failed at %r (%d more since the last line)",
                event.kind,
                suppressed,
                exc_info=error,
                extra={"keyauth_event": "hook_failed", "reason": event.kind},
            )

    def _drop(self, count: int) -> None:
        self._counters.events_dropped += count
        if self._drops.allow() is not None:
            logger.warning(
                "on_event is too slow: %d events dropped since the start",
                self._counters.events_dropped,
                extra={"keyauth_event": "events_dropped"},
            )
