"""What is counted and timed. Plain integers; ``providers.py`` lets OpenTelemetry read them."""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext

_NO_SPAN = nullcontext()


class Counters:
    """Plain integers, each of which only grows: adding one to them is all that an admitted request pays.

    Attributes:
        admitted_from_memory: requests admitted by what this worker remembered of the key.
        admitted_by_row: requests admitted after the key's row was read.
        missed: rows read because the token was not remembered.
        stale: rows read because the key may have changed since, or what was remembered is too old.
        refused: requests refused, by the code of the answer.
        outages, recoveries: by part, ``redis`` or ``database``.
        events_dropped: events that an ``on_event`` hook had no time for.
    """

    __slots__ = (
        "admitted_by_row",
        "admitted_from_memory",
        "events_dropped",
        "missed",
        "outages",
        "recoveries",
        "refused",
        "stale",
    )

    def __init__(self) -> None:
        self.admitted_from_memory = 0
        self.admitted_by_row = 0
        self.missed = 0
        self.stale = 0
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.outages: defaultdict[str, int] = defaultdict(int)
        self.recoveries: defaultdict[str, int] = defaultdict(int)
        self.events_dropped = 0


class Metrics:
    """What the parts tell of their work. This one keeps the counters and forgets the times.

    Attributes:
        counters: the integers.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = Counters() if counters is None else counters

    def start(self) -> None:
        """The application starts: whoever traces it has been set up by now."""

    def answered(self, questions: int, seconds: float, error: str | None) -> None:
        """A call to Redis has come back with the answers to so many requests, or with an error."""

    def hashed(self, operation: str, seconds: float) -> None:
        """Argon2 has run, for ``create`` or for ``verify``."""

    def span(self, name: str, key_id: str | None = None) -> AbstractContextManager[object]:
        """A span below the one of the request, where the request is traced."""
        return _NO_SPAN

    @property
    def is_tracing(self) -> bool:
        """Whether spans go anywhere. Known once the application has started."""
        return False
