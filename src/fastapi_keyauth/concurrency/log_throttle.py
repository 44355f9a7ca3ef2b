"""Log lines that may be wanted a thousand times a second and are written every few seconds."""

import time
from collections.abc import Callable

EVERY_S = 5.0


class LogThrottle:
    """Lets one through every ``every_s`` seconds and counts the others.

    Args:
        every_s: seconds between two.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, every_s: float = EVERY_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._monotonic = monotonic
        self._last = -every_s
        self._held_back = 0

    def allow(self) -> int | None:
        """None: not now. A number: now, and so many were held back since the last."""
        now = self._monotonic()
        if now - self._last < self._every_s:
            self._held_back += 1
            return None
        held_back, self._held_back = self._held_back, 0
        self._last = now
        return held_back
