"""The held connection to Redis: whatever the server does, callers get an answer or an error, and later calls work."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any

import hiredis
import pytest

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter import FailoverLimiter, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.protocol import Policy
from fastapi_keyauth.limiter.redis.connection import IDLE_AFTER_S
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs
from fastapi_keyauth.telemetry.counters import Metrics
from fastapi_keyauth.telemetry.observer import Observer
from tests.helpers.clocks import LeapingClock
from tests.helpers.fakes import listening, read_command
from tests.helpers.limits import question
from tests.helpers.waiting import until

ADMITTED = b"*5\r\n:0\r\n$1\r\ng\r\n:500000\r\n:60\r\n*3\r\n:4\r\n:60\r\n:1800000000\r\n"
POLICY = Policy(3, 60_000, 60_000)
Answers = list[bytes | None]
"""Answers to script calls, in order. None closes the connection."""


class FakeRedis:
    """Answers script calls as the test specifies, and everything else with OK. Counts both."""

    def __init__(self) -> None:
        self.answers: Answers = []
        self.calls = 0
        self.connections = 0
        self.port = 0
        self.in_pieces = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refused_script = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                words = await read_command(reader)
                answer: bytes | None = b"+OK\r\n"
                if words[0].startswith(b"EVAL"):
                    self.calls += 1
                    answer = self.answers.pop(0) if self.answers else ADMITTED
                    if self.refused_script in words[1:2]:
                        answer = b"-ERR refused\r\n"
                    await self.may_answer.wait()
                if answer is None:
                    break
                for piece in [bytes([byte]) for byte in answer] if self.in_pieces else [answer]:
                    writer.write(piece)
                    await writer.drain()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[FakeRedis]:
    fake = FakeRedis()
    async with listening(fake.serve) as fake.port:
        yield fake


@pytest.fixture
async def limiter(server: FakeRedis) -> AsyncIterator[SingleNodeLimiter]:
    made = SingleNodeLimiter(f"redis://127.0.0.1:{server.port}/0", POLICY, "t", 1.0)
    yield made
    await made.close()


def take(limiter: SingleNodeLimiter | FailoverLimiter) -> Awaitable[object]:
    return limiter.check(question("k", 5))


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"*4\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
        b"-ERR odd\r\n",
        b"HTTP/1.1 400\r\n",
        b"*5\r\n:9\r\n$1\r\ng\r\n:4\r\n:5\r\n:6\r\n",
        b"$2\r\n\xff\xfe\r\n",
    ],
)
async def test_an_unexpected_answer_fails_the_call_and_the_next_one_succeeds(
    server: FakeRedis, limiter: SingleNodeLimiter, answer: bytes
) -> None:
    server.answers = [answer]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    decision = await limiter.check(question("k", 5))
    assert decision.verdict is Verdict.ADMITTED


async def test_a_repeated_answer_is_not_given_to_the_next_call(server: FakeRedis, limiter: SingleNodeLimiter) -> None:
    other = ADMITTED.replace(b":4", b":3")
    server.answers = [ADMITTED + ADMITTED, other]
    server.in_pieces = False
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    decision = await limiter.check(question("k", 5))
    assert decision.remaining == 3


async def test_a_call_that_lost_its_connection_is_sent_once_more_and_not_again(
    server: FakeRedis, limiter: SingleNodeLimiter
) -> None:
    await take(limiter)
    server.answers = [None]
    await take(limiter)
    assert (server.calls, server.connections) == (3, 2)
    server.answers = [None, None]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert server.calls == 5


async def test_a_connection_that_was_forgotten_while_idle_is_replaced_and_the_call_sent_once_more(
    server: FakeRedis, limiter: SingleNodeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middlebox drops everything that is sent over the connection, and notifies neither end."""
    clock = LeapingClock(monkeypatch)
    await take(limiter)
    clock.leap(IDLE_AFTER_S + 1)
    server.answers = [b""]
    decision = await limiter.check(question())
    assert decision.verdict is Verdict.ADMITTED
    assert (server.calls, server.connections) == (3, 2)


async def test_a_failed_attempt_and_a_change_survive_a_connection_that_was_forgotten_while_idle(
    server: FakeRedis, limiter: SingleNodeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LeapingClock(monkeypatch)
    server.answers = [b":1\r\n"]
    await limiter.bump_generation("k")
    for call, answer in ((limiter.bump_generation, b":1\r\n"), (limiter.record_failure, b"*1\r\n:0\r\n")):
        clock.leap(IDLE_AFTER_S + 1)
        server.answers = [b"", answer]
        await call("k")
    assert server.connections == 3


async def test_a_busy_server_that_does_not_respond_gets_no_call_twice(
    server: FakeRedis, limiter: SingleNodeLimiter
) -> None:
    await take(limiter)
    server.answers = [b""]
    with pytest.raises(LimiterUnavailable, match="TimeoutError"):
        await take(limiter)
    assert server.calls == 2


async def test_a_server_that_loses_the_script_and_fails_at_its_source_is_not_flooded(
    server: FakeRedis, limiter: SingleNodeLimiter
) -> None:
    await take(limiter)
    server.answers = [b"-NOSCRIPT none\r\n", None] * 20
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert server.connections <= 3


async def test_a_call_after_closing_fails_immediately(server: FakeRedis, limiter: SingleNodeLimiter) -> None:
    await take(limiter)
    await limiter.close()
    with pytest.raises(LimiterUnavailable):
        await take(limiter)


async def test_workers_forked_from_one_process_create_different_generations(redis_server_url: str) -> None:
    limiter = SingleNodeLimiter(redis_server_url, POLICY, "t", 5.0)
    given = set()
    for key_id in ("a", "b"):  # a fork shares all that was made before the start
        await limiter.start()
        given.add((await limiter.check(question(key_id, 5))).generation.partition(":")[2])
        await limiter.close()
    nonces = {generation[:16] for generation in given}
    assert len(nonces) == 2


def test_a_call_is_packed_as_hiredis_packs_it() -> None:
    lua = files("fastapi_keyauth.limiter.redis").joinpath("lua")
    source = b"".join(lua.joinpath(f"{name}.lua").read_bytes() for name in ("now", "take_others", "take"))
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
    calls: list[ScriptArgs] = [([], []), (["ka:{käy}", "ka:{}"], ["", 0, -1, 10**12, "0"])]
    for prepared in calls:
        keys, args = prepared
        rest: tuple[Any, ...] = (len(keys), *keys, *args)
        assert LuaScript("take_others", "take").pack(prepared) == hiredis.pack_command(("EVALSHA", sha, *rest))
        assert LuaScript("take_others", "take").pack(prepared, with_source=True) == hiredis.pack_command(
            ("EVAL", source, *rest)
        )


async def test_the_timeout_counts_from_the_question_and_not_from_the_call(
    server: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow server that answers each call in time is too late for a question that waited for the call before."""
    clock = LeapingClock(monkeypatch)
    limiter = SingleNodeLimiter(f"redis://127.0.0.1:{server.port}/0", POLICY, "t", 30.0)
    await take(limiter)
    server.may_answer.clear()
    first, second = take(limiter), take(limiter)
    await asyncio.sleep(0)
    clock.leap(29.9)
    server.may_answer.set()
    await first
    server.may_answer.clear()
    with pytest.raises(LimiterUnavailable, match="TimeoutError"):
        await asyncio.wait_for(second, 10)
    server.may_answer.set()
    await limiter.close()


async def test_a_worker_that_stood_still_reports_no_outage(server: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it connects, which takes several turns of the event loop."""
    clock = LeapingClock(monkeypatch)
    limiter = SingleNodeLimiter(f"redis://127.0.0.1:{server.port}/0", POLICY, "t", 30.0)
    asked = asyncio.ensure_future(take(limiter))
    await asyncio.sleep(0)
    clock.leap(40)
    await asked
    await limiter.close()


async def test_a_start_on_a_busy_machine_probes_more_than_once(server: FakeRedis) -> None:
    limiter = SingleNodeLimiter(f"redis://127.0.0.1:{server.port}/0", POLICY, "t", 0.3)
    server.may_answer.clear()
    starting = asyncio.create_task(limiter.start())
    await until(lambda: server.connections >= 2)
    server.may_answer.set()
    await starting
    await limiter.close()


async def test_the_breaker_stays_open_while_redis_rejects_only_checks(
    server: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis accepts changes but rejects checks: a probe of changes alone would make the breaker alternate."""
    observer = Observer(Metrics(), None, partial(datetime.now, UTC))
    limiter = FailoverLimiter(SingleNodeLimiter(f"redis://127.0.0.1:{server.port}/0", POLICY, "t", 1.0), None, observer)
    limiter._breaker._probe_every_s = 0.01
    await limiter.start()
    server.in_pieces = False
    server.refused_script = LuaScript("take_others", "take").pack(([], [])).split(b"\r\n")[4]
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    calls = server.calls
    await until(lambda: server.calls >= calls + 6)
    with pytest.raises(LimiterUnavailable):
        await take(limiter)
    assert "redis recovered" not in caplog.text
    server.refused_script = b""
    await until(lambda: "redis recovered" in caplog.text)
    await take(limiter)
    await limiter.close()
