"""One script call for all that wait: what arrives while a call is on the wire goes out together in the next."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, Generic, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError

from fastapi_keyauth.errors import LimiterUnavailable

MAX_BATCH = 128  # questions in one script call: keeps it well under a millisecond on the server


Question = TypeVar("Question")
Answer = TypeVar("Answer")
Prepared = tuple[Sequence[str], Sequence[str | int]]
"""Names of keys, and arguments, of one script call."""


class Script:
    """A Lua script, called by its SHA-1 and loaded where the server does not know it (restart, SCRIPT FLUSH)."""

    def __init__(self, client: Redis, name: str, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._source = files("fastapi_keyauth.limiter").joinpath("scripts", f"{name}.lua").read_text("utf-8")
        # Redis names scripts by SHA-1; nothing is protected by it.
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, prepare: Callable[[], Prepared]) -> Any:
        """Call it with what ``prepare`` gives. That is asked once the connection stands, and no later one is used.

        Raises:
            LimiterUnavailable: the server does not answer in time, or cannot run the script.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
                try:
                    keys, args = prepare()
                    try:
                        return await self._call(connection, "EVALSHA", self._sha, len(keys), *keys, *args)
                    except NoScriptError:
                        return await self._call(connection, "EVAL", self._source, len(keys), *keys, *args)
                except BaseException:
                    # A connection whose answer never came must not give it to the next caller.
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    await self._pool.release(connection)
        except (RedisError, OSError, TimeoutError) as error:
            # What the server says ("NOPERM ...") helps whoever reads the log; it repeats no argument of ours.
            said = str(error).splitlines()[:1]
            raise LimiterUnavailable(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__) from error

    async def _call(self, connection: AbstractConnection, *command: str | int) -> Any:
        await connection.send_command(*command)
        return await connection.read_response()


class Batcher(Generic[Question, Answer]):
    """Sends questions in batches, one batch on the wire at a time. A lone question goes at once.

    A question whose asker went away is answered all the same, into nothing; it disturbs no other in its batch.

    Args:
        send: asks a batch and gives as many answers, in order.
    """

    def __init__(self, send: Callable[[list[Question]], Awaitable[Sequence[Answer]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._flight: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer to one question."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._flight is None:
            self._flight = asyncio.create_task(self._fly(), name="keyauth-batch")
        return await future

    async def _fly(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                try:
                    answers = await self._send([question for question, _ in batch])
                except LimiterUnavailable as error:
                    # Those behind would wait as long for the same: they fail now.
                    self._fail(batch + self._waiting, error)
                    self._waiting = []
                    continue
                except BaseException as error:
                    self._fail(batch + self._waiting, LimiterUnavailable(type(error).__name__))
                    self._waiting = []
                    raise
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        finally:
            self._flight = None

    def _fail(self, batch: list[tuple[Question, asyncio.Future[Answer]]], error: LimiterUnavailable) -> None:
        for _, future in batch:
            if not future.done():
                # One exception object for each: a shared one would collect every asker's traceback.
                future.set_exception(LimiterUnavailable(*error.args))

    async def close(self) -> None:
        """Wait for what is on the wire."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
