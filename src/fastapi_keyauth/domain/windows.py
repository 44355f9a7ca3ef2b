"""The arithmetic of windows in UTC: calendar months, and windows counted from 1970."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

Algorithm = Literal["fixed_window", "sliding_window"]
MAX_WINDOW_S = 31_622_400
"""Seconds of the longest window: 366 days."""
STEP_MS = 10_000
"""Milliseconds by which a clock may step back across the end of a window without ending the window that began."""
_TICKS = 3_600_000
"""Maximum number of ticks in a window. The ticks of an hour are milliseconds."""


class Window(NamedTuple):
    """A window: its number, its length, and its end in milliseconds since 1970."""

    number: int
    length_ms: int
    end_ms: int


def window_at(window_ms: int, now_ms: int) -> Window:
    """Return the window that a moment lies in.

    Args:
        window_ms: Its length; 0: a calendar month.
        now_ms: Milliseconds since 1970.
    """
    if window_ms:
        return window_of(window_ms, now_ms // window_ms)
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return month(moment.year * 12 + moment.month - 1)


def window_of(window_ms: int, number: int) -> Window:
    """Return the window with this number."""
    return Window(number, window_ms, (number + 1) * window_ms) if window_ms else month(number)


@lru_cache(maxsize=64)
def month(number: int) -> Window:
    """Return a calendar month. Its number is twelve times the year, plus 0 to 11."""
    start, end = (int(datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000 for n in (number, number + 1))
    return Window(number, end - start, end)


def ticks_of(window_ms: int) -> tuple[int, int]:
    """Return the milliseconds of a tick and the ticks of a sliding window.

    The ticks are few enough that a product of units and ticks stays below 2^53, which is what Lua counts exactly.
    """
    tick_ms = max(1, -(-window_ms // _TICKS))
    return tick_ms, -(-window_ms // tick_ms)
