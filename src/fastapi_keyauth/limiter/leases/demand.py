"""How often each key was asked for lately, to decide which leases are worth asking for."""

from fastapi_keyauth.limiter.leases.terms import LeaseName

MIN_RECENT = 4
"""Requests within one period that make a key busy."""
MAX_UNITS = 100_000
"""Requests that one lease may admit: more than a worker serves in the longest lease."""


class Demand:
    """Requests by key and cost in this period and in the one before. A period is as long as a lease.

    Args:
        period_s: Its length in seconds.
    """

    # Two plain dicts that take turns: nothing has to be evicted, however many keys there are.

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._began_at = 0.0
        self._now: dict[LeaseName, int] = {}
        self._before: dict[LeaseName, int] = {}
        self._denied: set[LeaseName] = set()

    def turn(self, now: float) -> None:
        """Begin a new period if this one is over."""
        elapsed = now - self._began_at
        if elapsed >= self._period_s:
            self._before = self._now if elapsed < 2 * self._period_s else {}
            self._now = {}
            self._denied.clear()
            self._began_at = now

    def add(self, name: LeaseName) -> None:
        """Count a request that was not admitted from a lease."""
        self._now[name] = self._now.get(name, 0) + 1

    def note(self, name: LeaseName, requests: int) -> None:
        """Note that a lease admitted as many requests as this in a period."""
        self._now[name] = max(requests, self._now.get(name, 0))

    def deny(self, name: LeaseName) -> None:
        """Note that a lease was denied: another one would be in this period, too."""
        self._denied.add(name)

    def units_to_ask(self, name: LeaseName) -> int:
        """Return for how many requests a lease is worth asking: a quarter more than in a period. 0: for none."""
        recent = max(self._now.get(name, 0), self._before.get(name, 0))
        if recent < MIN_RECENT or name in self._denied:
            return 0
        return min(recent + recent // 4, MAX_UNITS)
