"""Timeouts that do not count the time in which the process stood still."""

import asyncio
import time

import pytest

from fastapi_keyauth.concurrency.stall_tolerant_timeout import StallTolerantTimer, stall_tolerant_timeout
from tests.helpers.clocks import IdleClock
from tests.helpers.waiting import until

TIMEOUT_S = 0.08


async def test_a_block_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    IdleClock(monkeypatch)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with stall_tolerant_timeout(8.0):
            await asyncio.Event().wait()
    assert 7.9 < loop.time() - began < 9.0


async def test_a_block_that_is_fast_enough_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    IdleClock(monkeypatch)
    async with stall_tolerant_timeout(8.0):
        await asyncio.sleep(7.0)
    await asyncio.sleep(20.0)


async def test_a_process_that_stood_still_for_longer_has_time_left() -> None:
    async with stall_tolerant_timeout(TIMEOUT_S):
        time.sleep(2 * TIMEOUT_S)  # noqa: ASYNC251  # an application that blocks the event loop
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_timer_calls_back_once_after_its_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    IdleClock(monkeypatch)
    loop = asyncio.get_running_loop()
    calls: list[float] = []
    began = loop.time()
    timer = StallTolerantTimer(lambda: calls.append(loop.time() - began))
    timer.start(8.0)
    await asyncio.sleep(20.0)
    assert calls == [pytest.approx(8.0, abs=0.1)]


async def test_a_restarted_timer_counts_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    IdleClock(monkeypatch)
    calls: list[None] = []
    timer = StallTolerantTimer(lambda: calls.append(None))
    for _ in range(10):
        timer.start(8.0)
        await asyncio.sleep(6.5)
    assert calls == []
    await until(lambda: bool(calls))


async def test_a_timer_can_be_restarted_with_a_shorter_time(monkeypatch: pytest.MonkeyPatch) -> None:
    IdleClock(monkeypatch)
    loop = asyncio.get_running_loop()
    calls: list[float] = []
    began = loop.time()
    timer = StallTolerantTimer(lambda: calls.append(loop.time() - began))
    timer.start(800.0)
    timer.start(8.0)
    await until(lambda: bool(calls))
    assert calls == [pytest.approx(8.0, abs=0.1)]


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_a_timer_that_was_stopped_can_be_started_again(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    IdleClock(monkeypatch)
    calls: list[None] = []
    timer = StallTolerantTimer(lambda: calls.append(None))
    timer.start(8.0)
    getattr(timer, end)()
    await asyncio.sleep(20.0)
    assert calls == []
    timer.start(1.0)
    await until(lambda: bool(calls))
