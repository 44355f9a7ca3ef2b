"""Counters and timings. They are plain integers, which OpenTelemetry reads through ``opentelemetry.py``."""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext

_NO_SPAN = nullcontext()


class Counters:
    """Integers that only grow. An admitted request costs one addition.

    Attributes:
        admitted_from_memory: Requests admitted by the cached key.
        admitted_by_row: Requests admitted after the key's row was read.
        missed: Rows read because the token was not in the cache.
        stale: Rows read because the key may have changed, or the cached row is too old.
        ticketed: Secrets verified by a ticket in place of Argon2.
        refused: Refused requests by the code of the response.
        ended: Requests that were ended while they ran, by the code of the reason.
        outages: Outages by part, ``redis`` or ``database``.
        recoveries: Recoveries by part.
        events_dropped: Events that an ``on_event`` hook was too slow for.
        leases_granted: Leases of this worker.
        lease_units: Requests that they could have admitted.
        lease_used: Requests that they admitted, each without asking Redis. Counted when a lease has ended.
        lease_returned: Requests that they did not admit and that were returned.
        lease_forfeited: The same, but not returned: the call failed, or Redis was replaced.
        lease_trips_saved: Calls to Redis that leases saved: one for each request that they admitted, minus one
            for each lease, which may have to be returned by a call of its own.
    """

    __slots__ = (
        "admitted_by_row",
        "admitted_from_memory",
        "ended",
        "events_dropped",
        "lease_forfeited",
        "lease_returned",
        "lease_trips_saved",
        "lease_units",
        "lease_used",
        "leases_granted",
        "missed",
        "outages",
        "recoveries",
        "refused",
        "stale",
        "ticketed",
    )

    def __init__(self) -> None:
        self.admitted_from_memory = 0
        self.admitted_by_row = 0
        self.missed = 0
        self.stale = 0
        self.ticketed = 0
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.ended: defaultdict[str, int] = defaultdict(int)
        self.outages: defaultdict[str, int] = defaultdict(int)
        self.recoveries: defaultdict[str, int] = defaultdict(int)
        self.events_dropped = 0
        self.leases_granted = 0
        self.lease_units = 0
        self.lease_used = 0
        self.lease_returned = 0
        self.lease_forfeited = 0
        self.lease_trips_saved = 0


class Metrics:
    """Receiver of counters, timings and spans. This one keeps the counters only.

    Attributes:
        counters: The counters.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = Counters() if counters is None else counters

    def start(self) -> None:
        """Start with the application, when tracing has been set up."""

    def answered(self, questions: int, seconds: float, error: str | None) -> None:
        """Record a call to Redis that carried the questions of a number of requests."""

    def hashed(self, operation: str, seconds: float) -> None:
        """Record a run of Argon2, for ``create`` or for ``verify``."""

    def span(self, name: str, key_id: str | None = None) -> AbstractContextManager[object]:
        """Return a span below that of the request, if the request is traced."""
        return _NO_SPAN

    @property
    def is_tracing(self) -> bool:
        """Whether spans are exported. Known once the application has started."""
        return False
