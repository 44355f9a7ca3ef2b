"""The order in which changes to keys, and reads of keys, get a connection to the database.

All management shares a few connections. One owner's crowd of calls must not delay another owner's, and nothing must
delay a revocation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from fastapi_keyauth.concurrency.fair_semaphore import FairSemaphore, TooManyWaiting
from fastapi_keyauth.concurrency.uncancellable import ShieldedTasks
from fastapi_keyauth.errors import TemporarilyUnavailable
from fastapi_keyauth.store.database import MAX_BACKGROUND_CONNECTIONS

REVOCATION_PLACES = 2
PLACES = MAX_BACKGROUND_CONNECTIONS - REVOCATION_PLACES - 1
"""Connections for changes and reads. Besides those for revocations, housekeeping keeps one."""
MAX_WAITING = 4096
MAX_WAITING_OF_OWNER = 512

Committed = TypeVar("Committed")
Result = TypeVar("Result")


class _KeyTurn:
    """The lock under which a key has one change at a time. It exists while it is used."""

    def __init__(self) -> None:
        self.semaphore = FairSemaphore(1, MAX_WAITING, MAX_WAITING_OF_OWNER)
        self.users = 0


class Turns:
    """Orders changes: owners take turns, a key has one change at a time, and revocations have connections of their own.

    Use it from one event loop.

    Args:
        tasks: Runs changes, which must not be cancelled midway.
    """

    def __init__(self, tasks: ShieldedTasks) -> None:
        self._tasks = tasks
        self._places = FairSemaphore(PLACES, MAX_WAITING, MAX_WAITING_OF_OWNER)
        self._revocations = FairSemaphore(REVOCATION_PLACES, MAX_WAITING, MAX_WAITING_OF_OWNER)
        self._key_turns: dict[str, _KeyTurn] = {}

    @asynccontextmanager
    async def place(self, owner: str | None) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for as long as the block runs.

        Args:
            owner: The owner that takes the turn. None: the application's own code, to which no bound applies.

        Raises:
            TemporarilyUnavailable: If too many wait already.
        """
        async with _turn(self._places, owner):
            yield

    async def change(
        self,
        owner: str | None,
        key_id: str | None,
        commit: Callable[[], Awaitable[Committed]],
        publish: Callable[[Committed], Awaitable[Result]],
        *,
        is_revocation: bool = False,
    ) -> Result:
        """Change a key when its turn has come.

        The wait for a turn can be cancelled. From then on the change completes even if its caller is cancelled.

        Args:
            owner: The owner that takes the turn. None: the application's own code, to which no bound applies.
            key_id: The key. None: a new one.
            commit: The transaction. It holds the turn.
            publish: Called with the result of ``commit`` afterwards. It does not hold the turn.
            is_revocation: Whether it takes the place of revocations, and passes the other changes to the key.

        Raises:
            TemporarilyUnavailable: If too many wait already.
        """
        async with AsyncExitStack() as waiting:
            if is_revocation:
                await waiting.enter_async_context(_turn(self._revocations, owner))
            else:
                if key_id is not None:
                    await waiting.enter_async_context(self._turn_of_key(key_id, owner))
                await waiting.enter_async_context(self.place(owner))
            turn = waiting.pop_all()

        async def complete() -> Result:
            async with turn:
                committed = await commit()
            return await publish(committed)

        return await self._tasks.run(complete())

    @asynccontextmanager
    async def _turn_of_key(self, key_id: str, owner: str | None) -> AsyncIterator[None]:
        turn = self._key_turns.setdefault(key_id, _KeyTurn())
        turn.users += 1
        try:
            async with _turn(turn.semaphore, owner):
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._key_turns[key_id]


@asynccontextmanager
async def _turn(semaphore: FairSemaphore, owner: str | None) -> AsyncIterator[None]:
    try:
        await semaphore.acquire(owner)
    except TooManyWaiting:
        raise TemporarilyUnavailable("too many management calls wait") from None
    try:
        yield
    finally:
        semaphore.release()
