"""Readings in tasks of their own: who waits is patient with a crowd, and not with what hangs."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastapi_keyauth.store.readings import MAX_WAITS, Readings

Read = Callable[[], Coroutine[Any, Any, Any]]


def taking(seconds: float, result: int = 1) -> Read:
    async def read() -> int:
        await asyncio.sleep(seconds)
        return result

    return read


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ZeroDivisionError


async def test_a_crowd_is_waited_for_as_long_as_readings_end() -> None:
    readings = Readings(1, ends_by_itself=False)
    seen = await asyncio.gather(*(readings.run(taking(0.2, n), 0.6) for n in range(5)))  # a second in all
    assert seen == list(range(5))


async def test_a_standstill_of_the_process_is_not_held_against_a_reading() -> None:
    readings = Readings(1, ends_by_itself=False)

    async def read() -> int:
        time.sleep(0.5)  # noqa: ASYNC251  # nothing in this process moves
        for _ in range(10):
            await asyncio.sleep(0.001)
        return 1

    assert await readings.run(read, 0.4) == 1


async def test_where_nothing_ends_those_before_their_turn_give_up_as_well() -> None:
    readings = Readings(1, ends_by_itself=True)
    hanging = asyncio.gather(*(readings.run(hang, 0.1) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in await hanging] == [TimeoutError] * 5
    await readings.close()
    assert await readings.run(taking(0), 1) == 1


async def test_nobody_waits_for_ever_in_a_crowd() -> None:
    readings = Readings(1, ends_by_itself=True)
    crowd = [asyncio.create_task(readings.run(taking(0.06), 0.1)) for _ in range(30)]
    seen = await asyncio.gather(*crowd, return_exceptions=True)
    late = [one for one in seen if isinstance(one, TimeoutError)]
    assert 0 < len(late) < 30 - MAX_WAITS


@pytest.mark.parametrize("ends_by_itself", [True, False])
async def test_what_hangs_is_given_up_at_once_and_keeps_its_place_until_it_has_ended(ends_by_itself: bool) -> None:
    readings = Readings(1, ends_by_itself=ends_by_itself)
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
    readings = Readings(1, ends_by_itself=False)
    with pytest.raises(TimeoutError):
        await readings.run(hang, 0.05)
    assert await readings.run(taking(0), 5) == 1


async def test_whoever_goes_away_takes_nothing_from_the_others() -> None:
    readings = Readings(1, ends_by_itself=False)
    going = [asyncio.create_task(readings.run(taking(0.05), 1)) for _ in range(3)]
    staying = asyncio.create_task(readings.run(taking(0.05), 1))
    await asyncio.sleep(0.01)
    for task in going:
        task.cancel()
    assert await staying == 1
    assert await asyncio.gather(*(readings.run(taking(0), 1) for _ in range(5))) == [1] * 5


async def test_a_failure_is_given_to_who_waits_and_frees_the_place() -> None:
    readings = Readings(1, ends_by_itself=False)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await readings.run(fail, 1)
    assert await readings.run(taking(0), 1) == 1


async def test_closing_does_not_cancel_whoever_waits() -> None:
    readings = Readings(1, ends_by_itself=False)
    waiting = asyncio.create_task(readings.run(hang, 10))
    await asyncio.sleep(0.01)
    await readings.close()
    with pytest.raises(TimeoutError):
        await waiting
