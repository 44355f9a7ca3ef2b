"""One running call per key, shared by all callers that need its result."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Error = TypeVar("Error", bound=BaseException)


class _Call(NamedTuple, Generic[Result]):
    began_at: float
    task: asyncio.Task[Result]


class SingleFlight(Generic[Key, Result]):
    """Deduplicates concurrent calls. Use it from one event loop.

    Each call runs in a task of its own, which continues if a waiter is cancelled, or all of them are. If it fails,
    every waiter gets its own exception object: a shared one would collect the tracebacks of all waiters.

    Args:
        name: Name of the tasks, for debuggers.
        monotonic: Clock in seconds that never goes back.
    """

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._latest: dict[Key, _Call[Result]] = {}
        self._tasks: set[asyncio.Task[Result]] = set()

    async def run(
        self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]], *, max_age_s: float = math.inf
    ) -> Result:
        """Return the result of the running call of this key; start one if none is running.

        Args:
            key: Calls with equal keys are shared.
            call: Starts a call. Not called if a running call is joined.
            max_age_s: Join only a call that began less than this many seconds ago. A newer call then replaces it.

        Raises:
            CancelledError: If this waiter is cancelled, or the call is (see ``cancel``).
            Exception: A copy of what the call raised.
        """
        task = self.start(key, call, max_age_s=max_age_s)
        await asyncio.wait([task])  # which neither cancels the task nor raises its error
        if task.cancelled():
            raise asyncio.CancelledError
        error = task.exception()
        if error is not None:
            raise copy_error(error)
        return task.result()

    def start(
        self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]], *, max_age_s: float = math.inf
    ) -> asyncio.Task[Result]:
        """Return the running call of this key as a task; start one if none is running.

        For callers that wait in their own way, or not at all. Wait by ``asyncio.wait`` or ``asyncio.shield``, as
        awaiting the task passes cancellation on to it. An error that is never retrieved is not logged by asyncio.

        Args:
            key: See ``run``.
            call: See ``run``.
            max_age_s: See ``run``.
        """
        now = self._monotonic()
        running = self._latest.get(key)
        if running is not None and now - running.began_at < max_age_s:
            return running.task
        task = asyncio.create_task(call(), name=self._name)
        self._latest[key] = _Call(now, task)
        self._tasks.add(task)
        task.add_done_callback(partial(self._discard, key))
        return task

    def is_running(self, key: Key) -> bool:
        """Return whether a call of this key is running, so that ``run`` would join it."""
        return key in self._latest

    async def settle(self) -> None:
        """Wait until all running calls have ended, whatever their outcome."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cancel(self) -> None:
        """Cancel all running calls and, with them, their waiters."""
        for task in self._tasks:
            task.cancel()

    def _discard(self, key: Key, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        latest = self._latest.get(key)
        if latest is not None and latest.task is task:
            del self._latest[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio would log an error whose waiters were all cancelled


def copy_error(error: Error) -> Error:
    """Return a copy of an exception: same class, arguments, attributes, cause and traceback so far."""
    # Without __init__, whose signature may differ from the arguments that are kept. OSError keeps some apart.
    copy = type(error).__new__(type(error), *error.__reduce__()[1])
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    copy.__context__ = error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
