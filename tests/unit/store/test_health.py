"""When the breaker opens and closes, without any database."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from fastapi_keyauth import StoreUnavailable
from fastapi_keyauth.store.health import CircuitBreaker
from fastapi_keyauth.telemetry.counters import Counters, Metrics
from fastapi_keyauth.telemetry.observer import Observer
from tests.helpers.clocks import IdleClock
from tests.helpers.waiting import until

A_WHILE_S = 60.0
"""Many questions long, on a clock that passes it in no time."""


class Patient:
    """A database that answers, fails or hangs."""

    def __init__(self) -> None:
        self.state = "well"
        self.asked = 0
        self.asked_at_once = 0
        self.most_at_once = 0
        self.hears_cancellation = asyncio.Event()

    async def probe(self) -> None:
        self.asked += 1
        self.asked_at_once += 1
        self.most_at_once = max(self.most_at_once, self.asked_at_once)
        try:
            if self.state == "fails":
                raise ConnectionRefusedError("the port is closed")
            if self.state == "hangs":
                try:
                    await asyncio.Event().wait()
                finally:
                    await self.hears_cancellation.wait()
        finally:
            self.asked_at_once -= 1


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> IdleClock:
    return IdleClock(monkeypatch)


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def counts() -> Counters:
    return Counters()


async def stop(watched: CircuitBreaker) -> None:
    """Which does not wait for the database."""
    async with asyncio.timeout(1):
        await watched.stop()


@pytest.fixture
async def watched(patient: Patient, counts: Counters) -> AsyncIterator[CircuitBreaker]:
    watched = CircuitBreaker(patient.probe, Observer(Metrics(counts), None, lambda: datetime.now(UTC)))
    watched.start()
    yield watched
    patient.hears_cancellation.set()
    await stop(watched)


@pytest.mark.parametrize(
    ("state", "reason"),
    [("fails", "ConnectionRefusedError: the port is closed"), ("hangs", "TimeoutError: no answer")],
)
async def test_it_opens_where_the_database_does_not_answer_and_closes_where_it_does_again(
    patient: Patient,
    watched: CircuitBreaker,
    counts: Counters,
    state: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastapi_keyauth")
    patient.hears_cancellation.set()
    patient.state = state
    for _ in range(10):
        watched.report_failure(TimeoutError("no answer"))
    watched.check()  # a suspicion is none
    await until(lambda: watched.is_open)
    with pytest.raises(StoreUnavailable):
        watched.check()
    asked = patient.asked
    await until(lambda: patient.asked > asked + 2)
    patient.state = "well"
    await until(lambda: not watched.is_open)
    watched.check()
    assert caplog.messages == [
        f"database unavailable ({reason}): what needs it is refused until it is back",
        "database is back",
    ]
    assert (counts.outages, counts.recoveries) == ({"database": 1}, {"database": 1})


async def test_a_database_that_was_away_at_a_stop_is_back_when_it_has_started_again(
    patient: Patient, watched: CircuitBreaker, counts: Counters
) -> None:
    patient.state = "fails"
    watched.report_failure(TimeoutError())
    await until(lambda: watched.is_open)
    await watched.stop()
    watched.start()
    watched.check()
    assert (counts.outages, counts.recoveries) == ({"database": 1}, {"database": 1})


async def test_a_statement_that_fails_while_the_database_answers_is_logged_and_no_more(
    patient: Patient, watched: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        for _ in range(5):
            watched.report_failure(TimeoutError())
        await until(lambda: watched._watch is None)
    assert not watched.is_open
    assert patient.asked == 3
    assert caplog.messages == ["a statement failed: TimeoutError: no answer in time"]


async def test_a_key_that_comes_back_meanwhile_shows_that_the_database_is_busy_and_not_away(
    patient: Patient, watched: CircuitBreaker
) -> None:
    patient.hears_cancellation.set()
    patient.state = "hangs"
    watched.report_failure(TimeoutError())
    await until(lambda: patient.asked == 1)
    watched.answered()
    await until(lambda: watched._watch is None)
    assert not watched.is_open


async def test_a_probe_that_hangs_is_not_joined_by_others(patient: Patient, watched: CircuitBreaker) -> None:
    patient.state = "hangs"
    watched.report_failure(TimeoutError())
    await until(lambda: watched.is_open)
    await asyncio.sleep(A_WHILE_S)
    assert (patient.asked, patient.most_at_once) == (1, 1)
    patient.state = "well"
    patient.hears_cancellation.set()
    await until(lambda: not watched.is_open)


async def test_a_probe_that_fails_as_it_is_given_up_is_no_error_of_asyncio(watched: CircuitBreaker) -> None:
    """A driver whose own timeout ends in the same moment makes its error of our cancellation."""
    asked = 0

    async def fail_in_the_end() -> None:
        nonlocal asked
        asked += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError from None

    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    watched._probe = fail_in_the_end
    watched.report_failure(TimeoutError())
    await until(lambda: asked == 4)
    await stop(watched)
    gc.collect()
    assert complaints == []


async def test_stopped_it_asks_nothing_and_forgets(patient: Patient, watched: CircuitBreaker) -> None:
    patient.state = "fails"
    watched.report_failure(TimeoutError())
    await until(lambda: watched.is_open)
    await stop(watched)
    watched.check()
    asked = patient.asked
    watched.report_failure(TimeoutError())
    await asyncio.sleep(A_WHILE_S)
    assert patient.asked == asked
