"""Calls to the nodes of a cluster: whatever a node does, each caller gets its own answer or an error."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_keyauth.concurrency.stall_tolerant_timeout import TICKS
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter import ClusterLimiter, Verdict
from fastapi_keyauth.limiter.protocol import Decision, Policy
from fastapi_keyauth.limiter.redis.connection import IDLE_AFTER_S, IDLE_SHARE, UNSURE_AFTER_S, ConnectionLost
from fastapi_keyauth.settings.redis_urls import Address
from tests.helpers.clocks import LeapingClock
from tests.helpers.fakes import listening, read_command
from tests.helpers.limits import question
from tests.helpers.waiting import until

TIMEOUT_S = 30.0
HANG = b""
QUESTION = question("k", 9)


def admitted(remaining: int = 4) -> bytes:
    """The answer of the script to an admitted request."""
    return b"*5\r\n:0\r\n$1\r\ng\r\n:500000\r\n:60\r\n*3\r\n:%d\r\n:60\r\n:1800000000\r\n" % remaining


class FakeNode:
    """A node with all slots, or with redirections to another node. Answers script calls as the test specifies."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        """Answers to script calls, in order. None closes the connection; empty bytes are no answer."""
        self.owner = self
        self.said: list[str] = []
        self.flags: list[str] = []
        """The third argument of each script call."""
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                words = [word.decode() for word in await read_command(reader)]
                answer: bytes | None = b"+OK\r\n"
                if words[0] == "CLUSTER":
                    answer = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % self.owner.port
                elif words[0].startswith("EVAL") or words[0] == "ASKING":
                    self.said.append(words[0])
                    if words[0] != "ASKING":
                        self.flags.append(words[5 + int(words[2])])
                        answer = self.answers.pop(0) if self.answers else admitted()
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[FakeNode]:
    node = FakeNode()
    async with listening(node.serve) as node.port:
        yield node


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with serving() as one:
        yield one


@pytest.fixture
async def other() -> AsyncIterator[FakeNode]:
    async with serving() as one:
        yield one


@pytest.fixture
async def limiter(node: FakeNode) -> AsyncIterator[ClusterLimiter]:
    policy = Policy(3, 60_000, 60_000)
    made = ClusterLimiter(f"redis+cluster://127.0.0.1:{node.port}", policy, "t", TIMEOUT_S)
    yield made
    await made.close()


async def take(limiter: ClusterLimiter) -> Decision:
    return await limiter.check(QUESTION)


async def pass_time(clock: LeapingClock, seconds: float) -> None:
    """Let so much time pass that a timer which does not count stalls counts all of it."""
    for _ in range(TICKS):
        clock.leap(seconds / TICKS)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"*4\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
        b"-ERR odd\r\n",
        b"-MOVED\r\n",
        b"-MOVED 1 nowhere\r\n",
        b"-ASK 1 127.0.0.1:port\r\n",
        b"HTTP/1.1 400\r\n",
        b"*5\r\n:9\r\n$1\r\ng\r\n:4\r\n:5\r\n:6\r\n",
        b"$2\r\n\xff\xfe\r\n",
    ],
)
async def test_an_unexpected_answer_fails_the_call_and_the_next_one_succeeds(
    node: FakeNode, limiter: ClusterLimiter, answer: bytes
) -> None:
    node.answers = [answer]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert (await take(limiter)).verdict is Verdict.ADMITTED


@pytest.mark.parametrize("answer", [HANG, b"*5\r\n:0\r\n"])
async def test_a_missing_answer_fails_the_call_and_the_next_one_succeeds(
    node: FakeNode, limiter: ClusterLimiter, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    clock = LeapingClock(monkeypatch)
    node.answers = [answer]
    call = asyncio.create_task(take(limiter))
    await until(lambda: len(node.said) == 1)
    await pass_time(clock, TIMEOUT_S)
    with pytest.raises(LimiterUnavailable):
        await call
    assert (await take(limiter)).verdict is Verdict.ADMITTED


async def test_a_repeated_answer_is_not_given_to_the_next_call(node: FakeNode, limiter: ClusterLimiter) -> None:
    node.answers = [admitted(4) + admitted(4), admitted(3)]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert (await take(limiter)).remaining == 3


async def test_the_late_answer_to_a_cancelled_question_is_discarded(node: FakeNode, limiter: ClusterLimiter) -> None:
    await take(limiter)
    node.answers = [admitted(number) for number in range(5)]
    tasks = [asyncio.create_task(take(limiter)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[1].cancel()
    seen = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(answer, "remaining", None) for answer in seen] == [0, None, 2, 3, 4]
    assert node.connections == 1


async def test_a_call_that_lost_its_connection_is_sent_once_more_and_not_again(
    node: FakeNode, limiter: ClusterLimiter
) -> None:
    await take(limiter)
    node.answers = [None]
    await take(limiter)
    assert len(node.said) == 3
    node.answers = [None, None]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert len(node.said) == 5


async def test_a_connection_that_was_forgotten_while_idle_is_replaced_and_the_call_sent_once_more(
    node: FakeNode, limiter: ClusterLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LeapingClock(monkeypatch)
    await take(limiter)
    clock.leap(IDLE_AFTER_S + 1)
    node.answers = [HANG]
    call = asyncio.create_task(take(limiter))
    await until(lambda: len(node.said) == 2)
    await pass_time(clock, IDLE_SHARE * TIMEOUT_S)
    assert (await call).verdict is Verdict.ADMITTED
    assert (len(node.said), node.connections) == (3, 2)


async def test_calls_have_a_record_only_until_one_is_answered_after_a_pause(
    node: FakeNode, limiter: ClusterLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the connection is never idle again: each record takes memory of Redis for a minute."""
    clock = LeapingClock(monkeypatch)
    await take(limiter)
    clock.leap(2 * UNSURE_AFTER_S)
    node.answers = [admitted(4), HANG, admitted(3) + admitted(2)]
    calls = [asyncio.create_task(take(limiter)) for _ in range(2)]
    await calls[0]
    assert (await take(limiter)).remaining == 2
    assert (await calls[1]).remaining == 3
    assert node.flags == ["rm", "rm", "rm", "r"]


async def test_a_moved_slot_is_followed_and_stored(node: FakeNode, other: FakeNode, limiter: ClusterLimiter) -> None:
    await take(limiter)
    node.owner = other.owner
    node.answers = [b"-MOVED 1 127.0.0.1:%d\r\n" % other.port]
    for _ in range(3):
        assert (await take(limiter)).verdict is Verdict.ADMITTED
    assert (len(node.said), len(other.said)) == (2, 3)


async def test_a_migrating_slot_is_followed_once_and_not_stored(
    node: FakeNode, other: FakeNode, limiter: ClusterLimiter
) -> None:
    node.answers = [b"-ASK 1 127.0.0.1:%d\r\n" % other.port]
    other.answers = [b"-NOSCRIPT none\r\n"]
    assert (await take(limiter)).verdict is Verdict.ADMITTED
    assert other.said == ["ASKING", "EVALSHA", "ASKING", "EVAL"]
    await take(limiter)
    assert node.said == ["EVALSHA", "EVALSHA"]


@pytest.mark.parametrize("word", ["TRYAGAIN", "CLUSTERDOWN", "LOADING"])
async def test_a_call_that_cannot_be_answered_yet_is_repeated(
    node: FakeNode, limiter: ClusterLimiter, word: str
) -> None:
    node.answers = [f"-{word} not yet\r\n".encode()] * 2
    assert (await take(limiter)).verdict is Verdict.ADMITTED
    assert len(node.said) == 3


async def test_a_call_whose_slot_moves_is_repeated_without_the_name_of_a_record(
    node: FakeNode, limiter: ClusterLimiter
) -> None:
    again = b"-TRYAGAIN not yet\r\n"
    node.answers = [again, again, None, again]
    assert (await take(limiter)).verdict is Verdict.ADMITTED
    assert node.flags == ["rm", "r", "r", "r", "r"]


async def test_a_call_that_may_have_been_carried_out_keeps_its_record(node: FakeNode, limiter: ClusterLimiter) -> None:
    node.answers = [None, b"-TRYAGAIN not yet\r\n"]
    assert (await take(limiter)).verdict is Verdict.ADMITTED
    assert node.flags == ["rm", "rm", "rm"]


@pytest.mark.parametrize("word", ["CLUSTERDOWN", "MOVED"])
async def test_a_cluster_that_never_agrees_fails_the_call_within_its_timeout(
    node: FakeNode, limiter: ClusterLimiter, word: str
) -> None:
    node.answers = [f"-{word} 1 127.0.0.1:{node.port}\r\n".encode()] * 10_000
    limiter._timeout_s = 1.0
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert len(node.said) < 100


async def test_nodes_that_fail_while_another_returns_the_map_cause_no_error_log(
    limiter: ClusterLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio logs an error that was never retrieved, whenever it collects garbage."""
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def call(address: Address) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = loop.create_future()
        if address[1] == 1:
            answer.set_result([[0, 16383, ["127.0.0.1", 1]]])
        else:
            answer.set_exception(ConnectionLost("refused"))
        return answer

    nodes = limiter._router
    monkeypatch.setattr(nodes, "_connection_to", lambda address: SimpleNamespace(request=lambda _: call(address)))
    assert await nodes._fetch_map_from([("127.0.0.1", port) for port in range(1, 31)], None)
    monkeypatch.undo()
    gc.collect()
    assert errors == []


async def test_a_call_after_closing_fails_immediately(limiter: ClusterLimiter) -> None:
    await take(limiter)
    await limiter.close()
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
