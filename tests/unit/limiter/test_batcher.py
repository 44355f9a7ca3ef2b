"""Batches: which questions share one call."""

import asyncio
from collections.abc import Sequence

import pytest

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.redis.batcher import MAX_BATCH, Batcher, Resolve


class Wire:
    """Holds batches until the test answers them."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self._landed: list[Resolve[str]] = []
        self.since: list[float] = []

    def __call__(self, questions: list[str], resolve: Resolve[str], since: float) -> None:
        self.sent.append(questions)
        self._landed.append(resolve)
        self.since.append(since)

    def answer_with(self, answers: Sequence[str]) -> None:
        """Answer a batch, which may be answered again."""
        self._landed[-1](answers)

    def answer(self, answers: Sequence[str] | LimiterUnavailable | None = None) -> None:
        questions, resolve = self.sent[-1], self._landed.pop()
        resolve([f"to {question}" for question in questions] if answers is None else answers)


async def turn() -> None:
    """Run all tasks that are ready."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def batcher(wire: Wire) -> Batcher[str, str]:
    return Batcher(wire)


async def test_a_question_does_not_join_a_call_in_flight(wire: Wire, batcher: Batcher[str, str]) -> None:
    first = batcher.submit("a")
    second = batcher.submit("b")
    await turn()
    assert wire.sent == [["a"]]
    wire.answer()
    assert (await first, second.done(), wire.sent) == ("to a", False, [["a"], ["b"]])
    wire.answer()
    assert await second == "to b"


async def test_a_lone_question_is_sent_immediately_and_later_ones_together(
    wire: Wire, batcher: Batcher[str, str]
) -> None:
    futures = [batcher.submit(str(number)) for number in range(5)]
    assert wire.sent == [["0"]]
    wire.answer()
    assert wire.sent == [["0"], ["1", "2", "3", "4"]]
    wire.answer()
    assert await asyncio.gather(*futures) == [f"to {number}" for number in range(5)]


async def test_a_call_carries_a_bounded_number_of_questions(wire: Wire, batcher: Batcher[str, str]) -> None:
    futures = [batcher.submit("q") for _ in range(MAX_BATCH + 2)]
    for _ in range(3):
        wire.answer()
    assert [len(batch) for batch in wire.sent] == [1, MAX_BATCH, 1]
    assert len(await asyncio.gather(*futures)) == MAX_BATCH + 2


async def test_a_failed_call_fails_all_waiting_questions_with_separate_errors(
    wire: Wire, batcher: Batcher[str, str]
) -> None:
    first, second = batcher.submit("a"), batcher.submit("b")
    wire.answer(LimiterUnavailable("failed"))
    seen = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(error) for error in seen] == ["failed", "failed"]
    assert seen[0] is not seen[1]
    third = batcher.submit("c")
    wire.answer()
    assert await third == "to c"


async def test_a_cancelled_question_does_not_affect_its_batch(wire: Wire, batcher: Batcher[str, str]) -> None:
    first, cancelled, last = batcher.submit("a"), batcher.submit("b"), batcher.submit("c")
    cancelled.cancel()
    wire.answer()
    wire.answer()
    assert (await first, await last) == ("to a", "to c")


async def test_an_answer_of_another_length_is_rejected_as_a_whole(wire: Wire, batcher: Batcher[str, str]) -> None:
    asked = batcher.submit("a")
    with pytest.raises(ValueError, match="number of answers differs"):
        wire.answer_with(["x", "y"])
    assert not asked.done()
    wire.answer(LimiterUnavailable("unreadable"))
    with pytest.raises(LimiterUnavailable):
        await asked


async def test_closing_waits_for_all_answers(wire: Wire, batcher: Batcher[str, str]) -> None:
    futures = [batcher.submit(str(number)) for number in range(4)]
    closing = asyncio.create_task(batcher.close())
    await turn()
    wire.answer()
    await turn()
    assert not closing.done()
    wire.answer()
    await closing
    assert all(future.done() for future in futures)


async def test_closing_does_not_wait_for_cancelled_questions(wire: Wire, batcher: Batcher[str, str]) -> None:
    asked = [batcher.submit(str(number)) for number in range(3)]
    for future in asked:
        future.cancel()
    async with asyncio.timeout(30):
        await batcher.close()
    assert wire.sent == [["0"]]


async def test_a_call_knows_since_when_its_first_question_has_waited(wire: Wire, batcher: Batcher[str, str]) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    futures = [batcher.submit("on the wire"), *(batcher.submit("q") for _ in range(MAX_BATCH + 1))]
    asked = clock()
    for _ in range(3):
        wire.answer()
    await asyncio.gather(*futures)
    late = batcher.submit("late")
    assert began <= wire.since[0] <= wire.since[1] == wire.since[2] <= asked <= wire.since[3]
    wire.answer()
    await late
