"""One running call per key, whatever happens to its waiters."""

import asyncio
import gc
import traceback

import pytest

from fastapi_keyauth.concurrency.single_flight import SingleFlight, copy_error
from tests.helpers.waiting import until


class Call:
    """A call that runs until its outcome is set."""

    def __init__(self) -> None:
        self.started = 0
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started += 1
        return await self.outcome


@pytest.fixture
async def call() -> Call:
    return Call()


@pytest.fixture
async def flight() -> SingleFlight[str, str]:
    return SingleFlight("test")


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_concurrent_calls_of_one_key_share_one_result(flight: SingleFlight[str, str], call: Call) -> None:
    waiters = [asyncio.create_task(flight.run("key", call)) for _ in range(5)]
    await settle()
    call.outcome.set_result("found")
    assert await asyncio.gather(*waiters) == ["found"] * 5
    assert call.started == 1


async def test_calls_of_different_keys_run_concurrently(flight: SingleFlight[str, str], call: Call) -> None:
    waiters = [asyncio.create_task(flight.run(key, call)) for key in ("one", "other")]
    await settle()
    assert call.started == 2
    call.outcome.set_result("found")
    await asyncio.gather(*waiters)


async def test_a_finished_call_is_not_shared_with_later_ones(flight: SingleFlight[str, str], call: Call) -> None:
    call.outcome.set_result("found")
    await flight.run("key", call)
    await until(lambda: not flight.is_running("key"))
    await flight.run("key", call)
    assert call.started == 2


async def test_a_cancelled_waiter_does_not_cancel_the_call(flight: SingleFlight[str, str], call: Call) -> None:
    first, second = (asyncio.create_task(flight.run("key", call)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    call.outcome.set_result("found")
    assert await second == "found"
    assert first.cancelled()


async def test_a_call_without_waiters_runs_to_its_end(flight: SingleFlight[str, str], call: Call) -> None:
    waiter = asyncio.create_task(flight.run("key", call))
    await settle()
    waiter.cancel()
    await settle()
    later = asyncio.create_task(flight.run("key", call))
    await settle()
    call.outcome.set_result("found")
    assert await later == "found"
    assert call.started == 1


async def test_each_waiter_gets_its_own_exception_object(flight: SingleFlight[str, str], call: Call) -> None:
    waiters = [asyncio.create_task(flight.run("key", call)) for _ in range(2)]
    await settle()
    call.outcome.set_exception(LookupError("missing"))
    first, second = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(first, LookupError)
    assert isinstance(second, LookupError)
    assert first is not second
    assert str(first) == str(second) == "missing"
    assert "__call__" in "".join(traceback.format_exception(first)), "where it was raised must show"


async def test_an_error_without_a_waiter_is_not_logged_by_asyncio(flight: SingleFlight[str, str], call: Call) -> None:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
    flight.start("key", call)
    await settle()
    call.outcome.set_exception(LookupError("missing"))
    await flight.settle()
    call.outcome.exception()
    gc.collect()
    await settle()
    assert errors == []


async def test_a_call_that_is_too_old_is_replaced_and_still_answers_its_waiters(call: Call) -> None:
    now = 0.0
    flight: SingleFlight[str, str] = SingleFlight("test", monotonic=lambda: now)
    newer = Call()
    first = asyncio.create_task(flight.run("key", call))
    await settle()
    now = 1.0
    second = asyncio.create_task(flight.run("key", newer, max_age_s=1.0))
    third = asyncio.create_task(flight.run("key", newer, max_age_s=1.0))
    await settle()
    call.outcome.set_result("old")
    assert await first == "old"
    assert flight.is_running("key")
    newer.outcome.set_result("new")
    assert [await second, await third] == ["new", "new"]
    assert newer.started == 1


async def test_cancelling_all_calls_cancels_their_waiters(flight: SingleFlight[str, str], call: Call) -> None:
    waiter = asyncio.create_task(flight.run("key", call))
    await settle()
    flight.cancel()
    await flight.settle()
    with pytest.raises(asyncio.CancelledError):
        await waiter


class Refused(Exception):
    """An exception whose ``args`` differ from the arguments of its constructor."""

    def __init__(self, *, wait_s: int) -> None:
        super().__init__(f"wait {wait_s} s")
        self.wait_s = wait_s


@pytest.mark.parametrize("error", [Refused(wait_s=3), OSError(2, "missing", "file"), TimeoutError()])
def test_a_copy_of_an_exception_says_what_the_original_says(error: Exception) -> None:
    error.__cause__ = LookupError()
    copy = copy_error(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))
    assert copy.__cause__ is error.__cause__
