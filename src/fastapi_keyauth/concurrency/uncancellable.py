"""Work that completes even if its caller is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class ShieldedTasks:
    """Runs work in tasks of its own, which are not cancelled with their callers.

    A transaction that is cancelled in the middle may leave a lock in SQLite, and a change that is cancelled after its
    transaction is not announced. Use it from one event loop.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of the work. If the caller is cancelled, errors of the work are ignored.

        Args:
            work: The coroutine to run.
        """
        task = asyncio.create_task(work, name="keyauth-work")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def settle(self, within_s: float) -> None:
        """Wait for the running tasks, and cancel those that take longer.

        Args:
            within_s: Seconds to wait.
        """
        if late := await self.wait(within_s):
            for task in late:
                task.cancel()
            await asyncio.wait(late)

    async def wait(self, within_s: float) -> set[asyncio.Task[Any]]:
        """Wait for the running tasks, and return those that take longer.

        Args:
            within_s: Seconds to wait.
        """
        return (await asyncio.wait(self._running, timeout=within_s))[1] if self._running else set()


class HasTasks(Protocol):
    """A class with uncancellable methods.

    Attributes:
        tasks: Runs the methods.
    """

    tasks: ShieldedTasks


Owner = TypeVar("Owner", bound=HasTasks)


def uncancellable(
    method: Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]]:
    """Make a method complete even if its caller is cancelled."""

    @wraps(method)
    async def run(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self.tasks.run(method(self, *args, **kwargs))

    return run
