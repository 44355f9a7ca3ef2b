"""One call for all that wait: what arrives while a call is on the wire goes out together in the next."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fastapi_keyauth.errors import LimiterUnavailable

MAX_BATCH = 512
"""Questions in one script call: some milliseconds of the server's time at most. Fewer would make a crowd queue behind
several calls where each takes long."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Resolve = Callable[[Sequence[Answer] | LimiterUnavailable], None]
Answered = Callable[[int, float, str | None], None]
"""Told of a batch that came back: how many questions, after how many seconds, and the kind of error where it failed."""


class Batcher(Generic[Question, Answer]):
    """Sends questions in batches, one batch on the wire at a time. A lone question goes at once.

    A question whose asker went away is answered all the same, into nothing; it disturbs no other in its batch.

    Args:
        send: asks a batch; calls what it was given with as many answers, in order, or with why there are none. It is
            also told when the first of the batch was asked, on the event loop's clock.
        on_error: is asked, one by one, what a batch that failed was asked. Where left out, each of them fails.
        answered: told of each batch that comes back.
    """

    def __init__(
        self,
        send: Callable[[list[Question], Resolve[Answer], float], None],
        on_error: Callable[[Question, LimiterUnavailable], Answer] | None = None,
        answered: Answered | None = None,
    ) -> None:
        self._send = send
        self._on_error = on_error
        self._answered = answered
        self._departed_at = 0.0
        self._questions: list[Question] = []
        self._futures: list[asyncio.Future[Answer]] = []
        self._asked: list[Question] = []
        self._on_the_wire: list[asyncio.Future[Answer]] = []
        self._waiting_since = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, question: Question) -> asyncio.Future[Answer]:
        """The answer to one question."""
        loop = self._loop
        if loop is None:
            # Kept: Python 3.11 asks the system for its process id whenever it is asked for the running loop.
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._futures:
            # Once for all that go together. Where more wait than go, those left behind keep it: too early, never late.
            self._waiting_since = loop.time()
        self._questions.append(question)
        self._futures.append(future)
        if not self._on_the_wire:
            # Not one turn of the loop later, with all that ask in this one: that makes fewer calls and less work, but
            # no more requests per second, as the process then waits for Redis with nothing else to do.
            self._flush()
        return future

    def _flush(self) -> None:
        self._asked, self._questions = self._questions[:MAX_BATCH], self._questions[MAX_BATCH:]
        self._on_the_wire, self._futures = self._futures[:MAX_BATCH], self._futures[MAX_BATCH:]
        if self._answered is not None:
            self._departed_at = time.perf_counter()
        self._send(self._asked, self._resolve, self._waiting_since)

    def _resolve(self, answers: Sequence[Answer] | LimiterUnavailable) -> None:
        if self._answered is not None:
            kind = str(answers).partition(":")[0] if isinstance(answers, LimiterUnavailable) else None
            self._answered(len(self._asked), time.perf_counter() - self._departed_at, kind)
        if not isinstance(answers, LimiterUnavailable):
            if len(answers) != len(self._on_the_wire):
                raise ValueError("not as many answers as questions")
            resolve, self._on_the_wire = self._on_the_wire, []
            for future, answer in zip(resolve, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            if self._futures:
                self._flush()
            return
        # Those behind would wait as long for the same: they fail now.
        failed = zip(self._on_the_wire + self._futures, self._asked + self._questions, strict=True)
        self._on_the_wire, self._futures, self._asked, self._questions = [], [], [], []
        for future, question in failed:
            if future.done():
                continue
            # One exception object for each: a shared one would collect every asker's traceback.
            error = LimiterUnavailable(*answers.args)
            try:
                if self._on_error is None:
                    raise error
                future.set_result(self._on_error(question, error))
            except LimiterUnavailable as final:
                future.set_exception(final)

    async def close(self) -> None:
        """Wait for what was asked so far."""
        while waiting := [future for future in self._on_the_wire + self._futures if not future.done()]:
            await asyncio.wait(waiting)
