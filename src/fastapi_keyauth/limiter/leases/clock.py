"""The clock of leases, and the durations that all parts must agree on."""

import time
from collections.abc import Callable
from functools import partial

MAX_LEASE_MS = 1000
"""Maximum of the setting ``lease_ms``. A recorded end that is later than that was set by a wrong clock."""
LEASE_SHARE = 0.98
"""Share of a granted duration that its holder uses, so that a lease ends in time on a clock that is 2 % slow."""
WAIT_SHARE = 1.02
"""Factor for the time that a change waits for leases to end, so that it is long enough on a clock that is 2 % fast."""
GRACE_MS = 50
"""Milliseconds after the end of a lease within which its unused units are expected back."""


def lease_clock() -> Callable[[], float]:
    """Return a clock in seconds that never goes back, and that does not stop while the machine sleeps.

    On Linux and macOS, ``time.monotonic`` stops during sleep: a machine that wakes up would admit requests from leases
    that ended while it slept.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS, where this one includes sleep
        clock_id = getattr(time, name, None)
        if clock_id is not None:
            return partial(time.clock_gettime, clock_id)
    return time.monotonic  # Windows: includes sleep


class SteppedClock:
    """A lease clock for tests that replace the limiter's clock: it advances with both clocks, and never goes back.

    Args:
        clock: Seconds since 1970, in place of the clock of Redis.
        elapsed: A lease clock.
    """

    def __init__(self, clock: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._last = clock()
        self._stepped_s = 0.0

    def __call__(self) -> float:
        """Return the total time that has passed on both clocks. A step back counts like a step forward."""
        now = self._clock()
        self._stepped_s += abs(now - self._last)
        self._last = now
        return self._elapsed() + self._stepped_s


def outlast_s(lease_ms: int, recorded_ms: int = 0) -> float:
    """Return the seconds that a change must wait before it is answered, so that all leases have ended by then.

    Args:
        lease_ms: The setting of this process.
        recorded_ms: Milliseconds until the end of the latest lease that Redis has recorded. It is longer than
            ``lease_ms`` if another process has a larger setting, and 0 if Redis has lost its memory.
    """
    return max(lease_ms, min(recorded_ms, MAX_LEASE_MS)) * WAIT_SHARE / 1000
