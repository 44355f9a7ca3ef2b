"""The demand for each key: its recent requests, which decide whether a lease is worth requesting."""

from fastapi_keyauth.limiter.leases.terms import LeaseName

MIN_RECENT = 4
"""Minimum number of requests within one period that make a key busy."""
MAX_UNITS = 100_000
"""Maximum number of requests that one lease may admit: more than a worker serves in the longest lease."""


class Demand:
    """The number of requests by key and cost, in the current and the previous period. A period is as long as a lease.

    Args:
        period_s: Length of a period in seconds.
    """

    # Two plain dicts that take turns: nothing has to be evicted, however many keys there are.

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._began_at = 0.0
        self._now: dict[LeaseName, int] = {}
        self._before: dict[LeaseName, int] = {}
        self._denied: set[LeaseName] = set()

    def advance(self, now: float) -> None:
        """Begin a new period if the current one is over."""
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
        """Record how many requests a lease admitted, or would have admitted, in a whole period."""
        self._now[name] = max(requests, self._now.get(name, 0))

    def deny(self, name: LeaseName) -> None:
        """Record that a lease was denied. No further one is requested in this period."""
        self._denied.add(name)

    def units_to_ask(self, name: LeaseName) -> int:
        """Return the number of units to request: a quarter more than one period needed. 0: request none."""
        recent = max(self._now.get(name, 0), self._before.get(name, 0))
        if recent < MIN_RECENT or name in self._denied:
            return 0
        return min(recent + recent // 4, MAX_UNITS)
