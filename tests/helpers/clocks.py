"""The event loop's clock in the hands of a test, so that no test sleeps."""

import asyncio

import pytest


class LeapingClock:
    """It leaps where the loop is to have stood still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._leapt_s = 0.0
        monkeypatch.setattr(loop, "time", lambda: self._time() + self._leapt_s)

    def leap(self, seconds: float) -> None:
        """So many seconds have passed, and nothing was done in them."""
        self._leapt_s += seconds


class IdleClock(LeapingClock):
    """It also leaps to what is due next whenever nothing is left to do, and stands still while there is.

    A second takes no time then, and is as long on a busy machine as on an idle one. For tests of tasks and timers
    alone: threads and other processes are not waited for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        began_at = self._time()
        self._time = lambda: began_at
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # where a loop waits for timers
        self._select = selector.select
        monkeypatch.setattr(selector, "select", self._leap_instead)

    def _leap_instead(self, timeout: float | None) -> object:
        if timeout is None:  # no timer is set
            return self._select(None)
        found = self._select(0)
        if not found:
            self.leap(timeout)
        return found
