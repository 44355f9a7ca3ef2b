"""Batches of questions: those that arrive while a call is in flight are sent together in the next one."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fastapi_keyauth.errors import LimiterUnavailable

MAX_BATCH = 512
"""Maximum number of questions in one script call: they take the server some milliseconds at most. With fewer, a crowd
would wait for several calls if each takes long."""
MAX_POSTPONED = 10
"""Number of times that one question is postponed at most. Once is enough, unless servers or clocks fail meanwhile."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Resolve = Callable[[Sequence[Answer] | LimiterUnavailable], None]
"""Called with the answers to a batch, in order, or with the reason why there are none."""
Answered = Callable[[int, float, str | None], None]
"""Called after each batch with the number of questions, the seconds that it took, and the class of its error."""


class Batcher(Generic[Question, Answer]):
    """Sends questions in batches, with one batch in flight at a time. A lone question is sent immediately.

    A question whose caller is cancelled is sent with its batch all the same, and its answer is ignored.

    Args:
        send: Sends a batch. Its arguments are the questions, what to call with the outcome, and when the first of them
            was submitted, on the event loop's clock.
        on_error: Answers a question of a batch that failed. None: the question fails.
        answered: Called after each batch.
        answer_early: Answers a question that waits behind a batch that was just answered. None: it has to be sent.
    """

    def __init__(
        self,
        send: Callable[[list[Question], Resolve[Answer], float], None],
        on_error: Callable[[Question, LimiterUnavailable], Answer] | None = None,
        answered: Answered | None = None,
        answer_early: Callable[[Question], Answer | None] | None = None,
    ) -> None:
        self._send = send
        self._on_error = on_error
        self._answered = answered
        self._answer_early = answer_early
        self._sent_at = 0.0
        self._questions: list[Question] = []
        self._futures: list[asyncio.Future[Answer]] = []
        self._sent: list[Question] = []
        self._in_flight: list[asyncio.Future[Answer]] = []
        self._postponed: dict[asyncio.Future[Answer], int] = {}
        """Futures of questions that were postponed and not answered since, and how often."""
        self._waiting_since = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, question: Question) -> asyncio.Future[Answer]:
        """Return the future answer to a question.

        Args:
            question: The question.
        """
        loop = self._loop
        if loop is None:
            # Cached: in Python 3.11, get_running_loop() makes a system call for the process id.
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._add(question, future, loop)
        return future

    def _add(self, question: Question, future: "asyncio.Future[Answer]", loop: asyncio.AbstractEventLoop) -> None:
        if not self._futures:
            # Once for each batch. Questions beyond MAX_BATCH keep the time of the first one: too early, never late.
            self._waiting_since = loop.time()
        self._questions.append(question)
        self._futures.append(future)
        if not self._in_flight:
            # Not at the end of this turn of the event loop, together with others: that makes fewer calls, but no more
            # requests per second, since the process then waits for Redis with nothing else to do.
            self._flush()

    def postpone(self, position: int, seconds: float) -> None:
        """Send a question once more later. Call it before the answers to its batch are resolved: its own is ignored.

        Args:
            position: Its position in the batch that was just answered.
            seconds: When to send it, from now on.
        """
        question, future = self._sent[position], self._in_flight[position]
        if future.done():
            return
        loop = future.get_loop()
        times = self._postponed.get(future, 0)
        if times == MAX_POSTPONED:
            future.set_exception(LimiterUnavailable("a question was postponed too often"))
            return
        if not times:
            future.add_done_callback(self._postponed.pop)
        self._postponed[future] = times + 1
        self._in_flight[position] = ignored = loop.create_future()
        ignored.cancel()
        loop.call_later(seconds, self._add_again, question, future, loop)

    def _add_again(self, question: Question, future: "asyncio.Future[Answer]", loop: asyncio.AbstractEventLoop) -> None:
        if not future.done():
            self._add(question, future, loop)

    def _flush(self) -> None:
        self._sent, self._questions = self._questions[:MAX_BATCH], self._questions[MAX_BATCH:]
        self._in_flight, self._futures = self._futures[:MAX_BATCH], self._futures[MAX_BATCH:]
        if self._answered is not None:
            self._sent_at = time.perf_counter()
        self._send(self._sent, self._resolve, self._waiting_since)

    def _resolve(self, answers: Sequence[Answer] | LimiterUnavailable) -> None:
        if self._answered is not None:
            kind = str(answers).partition(":")[0] if isinstance(answers, LimiterUnavailable) else None
            self._answered(len(self._sent), time.perf_counter() - self._sent_at, kind)
        if not isinstance(answers, LimiterUnavailable):
            if len(answers) != len(self._in_flight):
                raise ValueError("the number of answers differs from that of the questions")
            futures, self._in_flight = self._in_flight, []
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            if self._futures and self._answer_early is not None:
                self._answer_waiting(self._answer_early)
            if self._futures:
                self._flush()
            return
        # Those that wait behind this batch would most likely time out too: they fail now.
        failed = zip(self._in_flight + self._futures, self._sent + self._questions, strict=True)
        self._in_flight, self._futures, self._sent, self._questions = [], [], [], []
        for future, question in failed:
            if future.done():
                continue
            # One exception object for each: a shared one would collect every caller's traceback.
            error = LimiterUnavailable(*answers.args)
            try:
                if self._on_error is None:
                    raise error
                future.set_result(self._on_error(question, error))
            except LimiterUnavailable as final:
                future.set_exception(final)

    def _answer_waiting(self, answer_early: Callable[[Question], Answer | None]) -> None:
        """Answer what can be answered without being sent."""
        waiting = list(zip(self._questions, self._futures, strict=True))
        self._questions, self._futures = [], []
        for question, future in waiting:
            answer = None if future.done() else answer_early(question)
            if answer is not None:
                future.set_result(answer)
            else:
                self._questions.append(question)
                self._futures.append(future)

    async def close(self) -> None:
        """Wait for all answers."""
        while waiting := [
            future for future in (*self._in_flight, *self._futures, *self._postponed) if not future.done()
        ]:
            await asyncio.wait(waiting)
