"""Event loop clocks that a test controls, so that no test sleeps."""

import asyncio

import pytest


class LeapingClock:
    """A clock that jumps forward, as if the event loop had been blocked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._leapt_s = 0.0
        monkeypatch.setattr(loop, "time", lambda: self._time() + self._leapt_s)

    def leap(self, seconds: float) -> None:
        """Advance the clock by this many seconds without running anything."""
        self._leapt_s += seconds


class IdleClock(LeapingClock):
    """A clock that jumps to the next timer whenever the loop is idle, and stands still while it is busy.

    A second takes no real time, and load on the machine does not change its length. Only for tests of tasks and timers:
    the clock does not wait for threads or other processes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        began_at = self._time()
        self._time = lambda: began_at
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # where a loop waits for timers
        self._select = selector.select
        monkeypatch.setattr(selector, "select", self._leap_instead)

    def _leap_instead(self, timeout: float | None) -> object:
        if timeout is None:  # No timer is set.
            return self._select(None)
        found = self._select(0)
        if not found:
            self.leap(timeout)
        return found
