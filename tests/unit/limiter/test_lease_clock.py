"""The clock of leases, and how long changes wait."""

from __future__ import annotations

import time

import pytest

from fastapi_keyauth.limiter.leases.clock import SteppedClock, lease_clock, outlast_s


def test_changes_wait_for_the_longest_lease_that_is_known() -> None:
    assert outlast_s(100) == pytest.approx(0.102)
    assert outlast_s(0, 80) == pytest.approx(0.0816)
    assert outlast_s(100, 10**9) == pytest.approx(1.02)  # by a clock that was ahead
    assert outlast_s(0) == 0


def test_lease_clock_of_tests_advances_with_both_clocks_and_never_goes_back() -> None:
    now = [1000.0]
    clock = SteppedClock(lambda: now[0], lambda: 5.0)
    assert clock() == 5.0
    now[0] += 3
    assert clock() == 8.0
    now[0] -= 10
    assert clock() == 18.0
    assert lease_clock()() <= lease_clock()()


@pytest.mark.parametrize(
    ("names", "seconds"),
    [(("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), 7.0), (("CLOCK_MONOTONIC",), 1.0), ((), 5.0)],
    ids=["linux", "macos", "windows"],
)
def test_lease_clock_includes_sleep_on_every_platform(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], seconds: float
) -> None:
    numbers = {"CLOCK_BOOTTIME": 7, "CLOCK_MONOTONIC": 1}
    for name, number in numbers.items():
        if name in names:
            monkeypatch.setattr(time, name, number, raising=False)
        else:
            monkeypatch.delattr(time, name, raising=False)
    monkeypatch.setattr(time, "clock_gettime", float, raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    clock = lease_clock()
    monkeypatch.undo()
    assert clock() == seconds
