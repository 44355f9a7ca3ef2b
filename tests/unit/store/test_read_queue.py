"""The queue of reads: requests wait while other reads complete, and time out if none does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastapi_keyauth.store.read_queue import MAX_WAITS, ReadQueue
from tests.helpers.clocks import IdleClock

Read = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> IdleClock:
    return IdleClock(monkeypatch)


def taking(seconds: float, result: int = 1) -> Read:
    async def read() -> int:
        await asyncio.sleep(seconds)
        return result

    return read


class Held:
    """A read that reports when it has begun, and completes only when it may."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def read(self) -> int:
        self.has_begun.set()
        await self.may_end.wait()
        return 1


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ZeroDivisionError


async def test_requests_wait_for_their_turn_as_long_as_reads_complete() -> None:
    queue = ReadQueue(1, cancel_abandoned=True)
    seen = await asyncio.gather(*(queue.run(taking(0.2, n), 0.6) for n in range(5)))  # a second in all
    assert seen == list(range(5))


async def test_a_stall_of_the_process_does_not_time_out_a_read(clock: IdleClock) -> None:
    queue = ReadQueue(1, cancel_abandoned=True)

    async def read() -> int:
        clock.leap(0.5)
        for _ in range(10):
            await asyncio.sleep(0.001)
        return 1

    assert await queue.run(read, 0.4) == 1


async def test_requests_before_their_turn_time_out_if_no_read_completes() -> None:
    queue = ReadQueue(1, cancel_abandoned=False)
    hanging = asyncio.gather(*(queue.run(hang, 0.1) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in await hanging] == [TimeoutError] * 5
    await queue.close()
    assert await queue.run(taking(0), 1) == 1


async def test_the_time_to_wait_for_a_turn_is_bounded() -> None:
    queue = ReadQueue(1, cancel_abandoned=False)
    crowd = [asyncio.create_task(queue.run(taking(0.07), 0.1)) for _ in range(30)]
    seen = await asyncio.gather(*crowd, return_exceptions=True)
    in_time = 1 + int(MAX_WAITS * 0.1 / 0.07)  # the first, and those whose turn comes while they wait
    assert [type(one) for one in seen] == [int] * in_time + [TimeoutError] * (30 - in_time)


@pytest.mark.parametrize("cancel_abandoned", [True, False])
async def test_a_hanging_read_times_out_and_keeps_its_place_until_it_has_ended(cancel_abandoned: bool) -> None:
    queue = ReadQueue(1, cancel_abandoned=cancel_abandoned)
    stop = asyncio.Event()

    async def slow_to_stop() -> None:
        try:
            await stop.wait()
        finally:
            await stop.wait()  # such as a connection that is being closed

    with pytest.raises(TimeoutError):
        await queue.run(slow_to_stop, 0.01)
    with pytest.raises(TimeoutError):
        await queue.run(taking(0), 0.01)
    stop.set()
    assert await queue.run(taking(0), 1) == 1


async def test_a_hanging_read_is_cancelled_and_frees_its_place() -> None:
    queue = ReadQueue(1, cancel_abandoned=True)
    with pytest.raises(TimeoutError):
        await queue.run(hang, 0.05)
    assert await queue.run(taking(0), 5) == 1


async def test_cancelled_requests_leave_the_others_alone() -> None:
    queue = ReadQueue(1, cancel_abandoned=True)
    held = Held()
    going = [asyncio.create_task(queue.run(held.read, 1)) for _ in range(3)]
    staying = asyncio.create_task(queue.run(held.read, 1))
    await held.has_begun.wait()
    for task in going:
        task.cancel()
    await asyncio.wait(going)
    held.may_end.set()
    assert await staying == 1
    assert await asyncio.gather(*(queue.run(taking(0), 1) for _ in range(5))) == [1] * 5


async def test_a_failure_is_raised_and_frees_the_place() -> None:
    queue = ReadQueue(1, cancel_abandoned=True)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await queue.run(fail, 1)
    assert await queue.run(taking(0), 1) == 1


async def test_closing_does_not_cancel_waiting_requests() -> None:
    queue = ReadQueue(1, cancel_abandoned=True)
    held = Held()
    waiting = asyncio.create_task(queue.run(held.read, 10))
    await held.has_begun.wait()
    await queue.close()
    with pytest.raises(TimeoutError):
        await waiting
