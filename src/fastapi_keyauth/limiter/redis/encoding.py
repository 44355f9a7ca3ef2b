"""Names and limits in the form that ``lua/take.lua`` reads."""

import base64
import hashlib
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.domain.limit_sets import Cost, LimitSet
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import UsageCount
from fastapi_keyauth.domain.windows import Window, window_at

_SLIDING, _OF_OWNER, _HOUR_ALONE = 1, 2, 4
"""Kinds of limits, which are added."""
_END_OF_TIME_MS = 2**47
_MAX_CACHED = 4096


class EncodedLimits:
    """Limits, a cost and the present windows.

    Attributes:
        from_ms: When the last of the windows began, in milliseconds since 1970.
        until_ms: When the first of them ends.
        args: The four arguments of the script.
    """

    __slots__ = ("_costs", "_ends_s", "_now_s", "_states", "args", "from_ms", "until_ms")

    def __init__(self, limits: LimitSet, cost: Cost, now_ms: int) -> None:
        costs = limits.costs(cost)
        windows = [window_at(limit.window_ms, now_ms) for limit in limits.all]
        self.from_ms = max((window.end_ms - window.length_ms for window in windows), default=0)
        self.until_ms = min((window.end_ms for window in windows), default=_END_OF_TIME_MS)
        self.args = (*_script_args(limits, costs, windows, self.from_ms, self.until_ms), encode_usage(cost))
        self._costs = costs
        self._ends_s = [window.end_ms // 1000 for window in windows]
        self._now_s = -1
        self._states: list[int] = []

    def states(self, now_s: int, free: Sequence[int]) -> list[int]:
        """Return what ``Decision.states`` describes, after a cost was charged.

        Args:
            now_s: Redis's time, in seconds since 1970.
            free: Units left of each limit.
        """
        if now_s != self._now_s:
            self._states = [number for end_s in self._ends_s for number in (0, end_s - now_s, end_s)]
            self._now_s = now_s
        states = self._states.copy()
        states[::3] = free
        return states

    def exhausted_states(self, now_s: int, free: Sequence[int]) -> tuple[int, list[int]]:
        """Return the seconds to wait, and what ``Decision.states`` describes, if a limit has no room for the cost.

        Args:
            now_s: Redis's time, in seconds since 1970.
            free: Units left of each limit, before the cost; below 0: a debt.
        """
        exhausted = [position for position, units in enumerate(self._costs) if free[position] < units]
        states = self.states(now_s, [max(0, units) for units in free])
        return max(states[3 * position + 1] for position in exhausted), states + exhausted


class LimitEncoder:
    """Encodes limits, and caches what it encoded last, since most keys have equal limits."""

    def __init__(self) -> None:
        self._cache: BoundedDict[tuple[LimitSet, Cost], EncodedLimits] = BoundedDict(_MAX_CACHED)

    def encode(self, limits: LimitSet, cost: Cost, now_ms: int) -> EncodedLimits:
        """Return limits with their windows at a moment.

        Args:
            limits: The limits.
            cost: What the request costs of each unit.
            now_ms: Milliseconds since 1970. Redis computes the windows again if its own clock is in others.
        """
        found = self._cache.get((limits, cost))
        if found is None or not found.from_ms <= now_ms < found.until_ms:
            found = self._cache[limits, cost] = EncodedLimits(limits, cost, now_ms)
        return found


@lru_cache(maxsize=4096)
def owner_tag(owner_id: str) -> str:
    """Return the name of an owner in Redis: short, and without characters that have a meaning in key names."""
    return base64.urlsafe_b64encode(hashlib.blake2b(owner_id.encode(), digest_size=12).digest()).decode()


def encode_usage(cost: Cost) -> str:
    """Return units as the script counts them: a number of requests, or names and numbers of several units."""
    units = {unit: number for unit, number in cost if number}
    if units.keys() <= {REQUESTS}:
        return str(units.get(REQUESTS, 0))
    return " ".join(f"{unit} {number}" for unit, number in units.items())


def decode_usage(key_id: str, reply: Sequence[str]) -> Iterator[UsageCount]:
    """Yield what ``lua/usage.lua`` returned of a key. A field that somebody else wrote is left out."""
    source, fields = reply[:1], iter(reply[1:])
    for name, units in zip(fields, fields, strict=True):
        hour, _, unit = name[1:].partition(":")
        if hour.isdecimal() and units.isdecimal():
            yield UsageCount(key_id, int(hour), unit or REQUESTS, source[0], int(units))


def _script_args(
    limits: LimitSet, costs: tuple[int, ...], windows: Sequence[Window], from_ms: int, until_ms: int
) -> tuple[bytes, str, bytes]:
    """Return the arguments about limits."""
    keys = len(limits.key)
    is_hour_alone = limits.only and keys == 1 and not limits.all[0].counter_id
    described = b"".join(
        _describe(limit, units, _OF_OWNER * (position >= keys) + _HOUR_ALONE * is_hour_alone)
        for position, (limit, units) in enumerate(zip(limits.all, costs, strict=True))
    )
    if is_hour_alone or any(limit.is_sliding for limit in limits.all):
        plain_format, plain = "", b""
    else:
        numbers = [limit.limit for limit in limits.all] + list(costs)
        texts = [*_counters(limits.key, windows[:keys]), *_counters(limits.owner, windows[keys:])]
        plain_format = "<I6I6I1I1" + "".join(f"c{len(text)}" for text in texts) + "I4" * len(numbers)
        plain = b"".join(
            (
                from_ms.to_bytes(6, "little"),
                until_ms.to_bytes(6, "little"),
                bytes((keys, len(limits.owner))),
                *texts,
                struct.pack(f"<{len(numbers)}I", *numbers),
            )
        )
    return described, plain_format, plain


def _describe(limit: Limit, units: int, kind: int) -> bytes:
    kind += _SLIDING * limit.is_sliding
    return _counter_name(limit) + struct.pack("<IIB", limit.limit, units, kind) + limit.window_ms.to_bytes(6, "little")


def _counters(limits: Sequence[Limit], windows: Sequence[Window]) -> tuple[bytes, bytes]:
    """Return the format of counters, and how it begins in the present windows."""
    head = bytes((len(limits),)) + b"".join(
        _counter_name(limit) + window.number.to_bytes(5, "little")
        for limit, window in zip(limits, windows, strict=True)
    )
    return b"<c%d" % len(head) + b"I4" * len(limits), head


def _counter_name(limit: Limit) -> bytes:
    """Return the name of a counter in Redis: eight characters."""
    if not limit.counter_id:
        return b"the-hour"
    return base64.urlsafe_b64encode(hashlib.blake2b(limit.counter_id.encode(), digest_size=6).digest())
