"""ReadQueue in tasks of their own: who waits is patient with a crowd, and not with what hangs."""

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
    """A reading that tells when it has begun, and does not end before it may."""

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


async def test_a_crowd_is_waited_for_as_long_as_readings_end() -> None:
    readings = ReadQueue(1, ends_by_itself=False)
    seen = await asyncio.gather(*(readings.run(taking(0.2, n), 0.6) for n in range(5)))  # a second in all
    assert seen == list(range(5))


async def test_a_standstill_of_the_process_is_not_held_against_a_reading(clock: IdleClock) -> None:
    readings = ReadQueue(1, ends_by_itself=False)

    async def read() -> int:
        clock.leap(0.5)
        for _ in range(10):
            await asyncio.sleep(0.001)
        return 1

    assert await readings.run(read, 0.4) == 1


async def test_where_nothing_ends_those_before_their_turn_give_up_as_well() -> None:
    readings = ReadQueue(1, ends_by_itself=True)
    hanging = asyncio.gather(*(readings.run(hang, 0.1) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in await hanging] == [TimeoutError] * 5
    await readings.close()
    assert await readings.run(taking(0), 1) == 1


async def test_nobody_waits_for_ever_in_a_crowd() -> None:
    readings = ReadQueue(1, ends_by_itself=True)
    crowd = [asyncio.create_task(readings.run(taking(0.07), 0.1)) for _ in range(30)]
    seen = await asyncio.gather(*crowd, return_exceptions=True)
    in_time = 1 + int(MAX_WAITS * 0.1 / 0.07)  # the first, and those whose turn comes while they wait
    assert [type(one) for one in seen] == [int] * in_time + [TimeoutError] * (30 - in_time)


@pytest.mark.parametrize("ends_by_itself", [True, False])
async def test_what_hangs_is_given_up_at_once_and_keeps_its_place_until_it_has_ended(ends_by_itself: bool) -> None:
    readings = ReadQueue(1, ends_by_itself=ends_by_itself)
    stop = asyncio.Event()

    async def slow_to_stop() -> None:
        try:
            await stop.wait()
        finally:
            await stop.wait()  # such as a connection that takes leave

    with pytest.raises(TimeoutError):
        await readings.run(slow_to_stop, 0.01)
    with pytest.raises(TimeoutError):
        await readings.run(taking(0), 0.01)
    stop.set()
    assert await readings.run(taking(0), 1) == 1


async def test_what_hangs_is_cancelled_and_its_place_is_free_again() -> None:
    readings = ReadQueue(1, ends_by_itself=False)
    with pytest.raises(TimeoutError):
        await readings.run(hang, 0.05)
    assert await readings.run(taking(0), 5) == 1


async def test_whoever_goes_away_takes_nothing_from_the_others() -> None:
    readings = ReadQueue(1, ends_by_itself=False)
    held = Held()
    going = [asyncio.create_task(readings.run(held.read, 1)) for _ in range(3)]
    staying = asyncio.create_task(readings.run(held.read, 1))
    await held.has_begun.wait()
    for task in going:
        task.cancel()
    await asyncio.wait(going)
    held.may_end.set()
    assert await staying == 1
    assert await asyncio.gather(*(readings.run(taking(0), 1) for _ in range(5))) == [1] * 5


async def test_a_failure_is_given_to_who_waits_and_frees_the_place() -> None:
    readings = ReadQueue(1, ends_by_itself=False)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await readings.run(fail, 1)
    assert await readings.run(taking(0), 1) == 1


async def test_closing_does_not_cancel_whoever_waits() -> None:
    readings = ReadQueue(1, ends_by_itself=False)
    held = Held()
    waiting = asyncio.create_task(readings.run(held.read, 10))
    await held.has_begun.wait()
    await readings.close()
    with pytest.raises(TimeoutError):
        await waiting
