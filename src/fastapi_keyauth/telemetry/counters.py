"""What is counted and timed. Plain integers; ``providers.py`` lets OpenTelemetry read them."""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the limiters know the instruments, not the other way round
    from fastapi_keyauth.limiter.protocol import Limiter

_NO_SPAN = nullcontext()


class Counts:
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


class Instruments:
    """What the parts tell of their work. This one keeps the counts and forgets the times.

    Attributes:
        counts: the integers.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = Counts() if counts is None else counts

    def start(self) -> None:
        """The application starts: whoever traces it has been set up by now."""

    def answered(self, questions: int, seconds: float, error: str | None) -> None:
        """A call to Redis has come back with the answers to so many requests, or with an error."""

    def hashed(self, operation: str, seconds: float) -> None:
        """Argon2 has run, for ``create`` or for ``verify``."""

    def span(self, name: str, key_id: str | None = None) -> AbstractContextManager[object]:
        """A span below the one of the request, where the request is traced."""
        return _NO_SPAN

    def traced(self, limiter: "Limiter") -> "Limiter":
        """The limiter, with a span around each question, where requests are traced."""
        return limiter
