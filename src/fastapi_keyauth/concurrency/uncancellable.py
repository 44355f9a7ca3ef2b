"""Work that comes to its end also when whoever waits for it goes away."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class ShieldedTasks:
    """Runs each work in a task of its own, which is not cancelled with those that wait for it.

    A transaction that is cut off in the middle may leave a lock in SQLite, and a change that is cut off after its
    transaction is not announced. Use it from one event loop.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What the work comes to. Where nobody waits for it any more, its errors are nobody's."""
        task = asyncio.create_task(work, name="keyauth-work")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def settle(self, within_s: float) -> None:
        """Wait for what still runs; what takes longer is cancelled."""
        if self._running and (late := (await asyncio.wait(self._running, timeout=within_s))[1]):
            for task in late:
                task.cancel()
            await asyncio.wait(late)


class HasWorks(Protocol):
    """What has methods that are done uncancellable."""

    tasks: ShieldedTasks


Owner = TypeVar("Owner", bound=HasWorks)


def uncancellable(
    method: Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]]:
    """Make a method one that comes to its end also when its caller is cancelled."""

    @wraps(method)
    async def run(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self.tasks.run(method(self, *args, **kwargs))

    return run
