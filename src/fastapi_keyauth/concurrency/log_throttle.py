"""A throttle for log lines that may come a thousand times a second."""

import time
from collections.abc import Callable

EVERY_S = 5.0
"""Seconds between two lines."""


class LogThrottle:
    """Allows one line every ``every_s`` seconds, and counts those that it suppresses.

    Args:
        every_s: Seconds between two lines.
        monotonic: Clock in seconds that never goes back.
    """

    def __init__(self, every_s: float = EVERY_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._monotonic = monotonic
        self._last = -every_s
        self._suppressed = 0

    def allow(self) -> int | None:
        """Return the number of lines suppressed since the last one, or None if this line must be suppressed."""
        now = self._monotonic()
        if now - self._last < self._every_s:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        self._last = now
        return suppressed
