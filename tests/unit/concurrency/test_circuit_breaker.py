"""When a circuit breaker opens and closes, and what it reports."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fastapi_keyauth.concurrency.circuit_breaker import PROBE_EVERY_S, CircuitBreaker
from tests.helpers.clocks import IdleClock
from tests.helpers.waiting import until

A_WHILE_S = 60.0
"""Many probes long, on a clock that passes it in no time."""


class Dependency:
    """Something that responds, fails or hangs, and the reports about it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.ends_when_cancelled = True
        self.may_end = asyncio.Event()
        self.probes = 0
        self.running = 0
        self.most_running = 0
        self.reports: list[str] = []

    async def probe(self) -> None:
        self.probes += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.hangs:
                await self.hang()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1

    async def hang(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if not self.ends_when_cancelled:
                await self.may_end.wait()


Build = Callable[..., CircuitBreaker]


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> IdleClock:
    return IdleClock(monkeypatch)


@pytest.fixture
async def dependency() -> Dependency:
    return Dependency()


@pytest.fixture
async def build(dependency: Dependency) -> AsyncIterator[Build]:
    """Builds a breaker of the dependency that is not started."""
    built: list[CircuitBreaker] = []

    def build(**options: Any) -> CircuitBreaker:
        breaker = CircuitBreaker(
            "redis",
            dependency.probe,
            "requests are denied",
            lambda reason: dependency.reports.append(f"open: {reason}"),
            lambda: dependency.reports.append("closed"),
            **options,
        )
        built.append(breaker)
        return breaker

    yield build
    dependency.may_end.set()
    for breaker in built:
        await stop(breaker)


async def stop(breaker: CircuitBreaker) -> None:
    """Stop it, which does not wait for the dependency."""
    async with asyncio.timeout(1):
        await breaker.stop()


async def test_a_failure_opens_it_and_a_successful_probe_closes_it(
    build: Build, dependency: Dependency, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = build()
    breaker.start()
    dependency.error = ConnectionError("refused")
    for _ in range(10):
        breaker.report_failure(ConnectionError("reset"))
    assert breaker.is_open
    await until(lambda: dependency.probes >= 3)
    assert breaker.is_open
    dependency.error = None
    await until(lambda: not breaker.is_open)
    assert dependency.reports == ["open: reset", "closed"]
    assert caplog.messages == ["redis unavailable (reset): requests are denied", "redis recovered"]
    assert [record.__dict__["keyauth_event"] for record in caplog.records] == ["outage", "recovered"]


async def test_the_first_probe_waits_so_that_probes_that_succeed_and_calls_that_fail_do_not_alternate(
    build: Build, dependency: Dependency
) -> None:
    breaker = build()
    breaker.start()
    breaker.report_failure(ConnectionError())
    await asyncio.sleep(PROBE_EVERY_S / 2)
    assert breaker.is_open
    assert dependency.probes == 0


@pytest.mark.parametrize(
    ("hangs", "reason"), [(False, "the port is closed"), (True, "no answer")], ids=["fails", "hangs"]
)
async def test_a_suspicion_opens_it_if_the_probe_fails_too(
    build: Build, dependency: Dependency, hangs: bool, reason: str
) -> None:
    breaker = build(confirms_failures=True, probe_timeout_s=1.5)
    breaker.start()
    dependency.hangs, dependency.error = hangs, ConnectionRefusedError("the port is closed")
    for _ in range(10):
        breaker.report_failure(TimeoutError("no answer"))
    assert not breaker.is_open, "a suspicion is not an outage yet"
    await until(lambda: breaker.is_open)
    assert dependency.reports == [f"open: {reason}"]
    dependency.hangs, dependency.error = False, None
    await until(lambda: not breaker.is_open)


async def test_an_unconfirmed_suspicion_is_logged_at_intervals(
    build: Build, dependency: Dependency, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = build(confirms_failures=True)
    breaker.start()
    for round_ in range(1, 4):
        for _ in range(5):
            breaker.report_failure(TimeoutError("no answer"))
        await until(lambda: dependency.probes == round_)  # noqa: B023  # awaited in the same round
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not breaker.is_open
    assert dependency.reports == []
    assert caplog.messages == ["redis call failed, but the health check passed: no answer"]


async def test_a_call_that_succeeds_meanwhile_refutes_a_suspicion(build: Build, dependency: Dependency) -> None:
    breaker = build(confirms_failures=True, probe_timeout_s=1.5)
    breaker.start()
    dependency.hangs = True
    breaker.report_failure(TimeoutError())
    await until(lambda: dependency.probes == 1)
    breaker.report_success()
    await asyncio.sleep(A_WHILE_S)
    assert not breaker.is_open


async def test_a_probe_that_hangs_is_not_joined_by_others(build: Build, dependency: Dependency) -> None:
    breaker = build(probe_timeout_s=1.5)
    breaker.start()
    dependency.hangs, dependency.ends_when_cancelled = True, False
    breaker.report_failure(TimeoutError())
    await asyncio.sleep(A_WHILE_S)
    assert (dependency.probes, dependency.most_running) == (1, 1)
    dependency.hangs = False
    dependency.may_end.set()
    await until(lambda: not breaker.is_open)


async def test_a_probe_that_fails_while_it_is_cancelled_is_not_logged_by_asyncio(build: Build) -> None:
    """A driver whose own timeout ends in the same moment turns our cancellation into its error."""
    probes = 0

    async def fail_in_the_end() -> None:
        nonlocal probes
        probes += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError from None

    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
    breaker = build(probe_timeout_s=1.5)
    breaker._probe = fail_in_the_end
    breaker.start()
    breaker.report_failure(TimeoutError())
    await until(lambda: probes == 4)
    await stop(breaker)
    gc.collect()
    assert errors == []


async def test_a_closed_breaker_that_watches_notices_an_outage_without_any_call(
    build: Build, dependency: Dependency
) -> None:
    breaker = build(watch_every_s=1.0)
    breaker.start()
    await until(lambda: dependency.probes == 3)
    assert not breaker.is_open
    dependency.error = ConnectionError("reset")
    await until(lambda: breaker.is_open)
    dependency.error = None
    await until(lambda: not breaker.is_open)


async def test_it_can_begin_open(build: Build, dependency: Dependency) -> None:
    breaker = build()
    breaker.start(ConnectionError("refused"))
    assert breaker.is_open
    assert dependency.reports == ["open: refused"]
    await until(lambda: not breaker.is_open)


async def test_an_outage_that_was_not_over_at_the_stop_is_over_at_the_next_start(
    build: Build, dependency: Dependency
) -> None:
    breaker = build()
    breaker.start()
    breaker.report_failure(ConnectionError("reset"))
    await stop(breaker)
    assert dependency.reports == ["open: reset"]
    breaker.start()
    assert dependency.reports == ["open: reset", "closed"]


async def test_a_stopped_breaker_probes_nothing_and_stays_closed(build: Build, dependency: Dependency) -> None:
    breaker = build(watch_every_s=1.0)
    breaker.start()
    dependency.error = ConnectionError()
    breaker.report_failure(ConnectionError())
    await stop(breaker)
    assert not breaker.is_open
    breaker.report_failure(ConnectionError())
    await asyncio.sleep(A_WHILE_S)
    assert not breaker.is_open
    assert dependency.probes == 0


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_bug_in_the_probe_is_logged_and_does_not_end_probing(
    build: Build, dependency: Dependency, caplog: pytest.LogCaptureFixture, is_open: bool
) -> None:
    breaker = build(outages=(ConnectionError,), watch_every_s=1.0)
    dependency.error = KeyError("bug")
    breaker.start(ConnectionError() if is_open else None)
    caplog.clear()
    await until(lambda: dependency.probes >= 5)
    assert breaker.is_open is is_open
    assert caplog.messages == ["redis health check failed; retrying"]
    assert caplog.records[0].exc_info is not None
    dependency.error = None
    await until(lambda: not breaker.is_open)


async def test_a_rejection_during_an_outage_is_logged_at_intervals(
    build: Build, dependency: Dependency, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was restored with another password must not be taken for one that is still unreachable."""
    caplog.set_level(logging.ERROR)
    breaker = build(is_rejection=lambda error: "password" in str(error))
    breaker.start(ConnectionError("refused"))
    dependency.error = ConnectionError("wrong password")
    await until(lambda: dependency.probes >= 5)
    assert caplog.messages == [
        "redis unavailable (refused): requests are denied",
        "redis responds but rejects the connection (wrong password)",
    ]
    assert caplog.records[1].__dict__["keyauth_event"] == "redis_refuses"
