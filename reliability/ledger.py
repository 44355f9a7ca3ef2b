"""Acknowledged changes, later responses, and the contradictions between them."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.helpers.fleet import Answer, Outcome

HOUR_S = 3600
LEASE_S = 0.1
"""The default of ``lease_ms``: for as long, workers may admit requests that a Redis counted which has lost its data."""
REFUSED_KEY = {(401, "revoked_api_key"), (401, "disabled_api_key"), (401, "expired_api_key")}
SUSPENDED: Outcome = (401, "owner_suspended")

# Kinds of violations.
ERROR = "server error"
ADMITTED_DEAD = "admitted after it was taken away"
ADMITTED_SUSPENDED = "admitted after its owner was suspended"
REFUSED_LIVE = "refused though it is good"
ODD = "an answer that fits nothing"
HUNG = "no answer at all"


@dataclass(slots=True, eq=False)
class Record:
    """Observations of the use of a key, or of all keys of an owner. ``limit``: requests per hour."""

    id: str
    limit: int | None
    made_at: float
    admitted: Counter[int] = field(default_factory=Counter)
    """Counts by hour since 1970."""
    began_at: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When the admitted requests of each hour since 1970 were sent, on the monotonic clock."""
    workers: set[int] = field(default_factory=set)
    is_full: bool = False
    """Whether its hourly limit was reached."""


@dataclass(slots=True, eq=False)
class OwnerRecord(Record):
    """An owner with a limit, and its keys, which have none.

    ``sure_from``: time from which it is certainly not suspended; ``dead_from``: from which it certainly is.
    """

    credentials: list[Credential] = field(default_factory=list)
    sure_from: float = math.inf
    dead_from: float = math.inf
    suspensions: int = 0


@dataclass(slots=True, eq=False)
class KeyRecord(Record):
    """A key that was acknowledged with 201. ``owner``: None unless the owner has a limit."""

    owner: OwnerRecord | None = None


@dataclass(slots=True, eq=False)
class Credential:
    """A token. ``sure_from``: time from which it is certainly valid; ``dead_from``: from which it is certainly not.

    Both on the monotonic clock; infinity if unknown. In between either answer is permitted.
    """

    token: str
    key: KeyRecord
    sure_from: float
    dead_from: float = math.inf
    can_revive: bool = False


@dataclass(slots=True)
class Tally:
    """Figures of the responses within a period."""

    requests: int = 0
    unavailable: int = 0
    """503 responses that the documentation allows."""
    lost: int = 0
    slowest_s: float = 0.0
    slowest_inside_s: float = 0.0
    """Longest time that a worker spent on a request, by the worker's clock."""
    violations: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Tally) -> None:
        """Add the figures of another tally."""
        self.requests += other.requests
        self.unavailable += other.unavailable
        self.lost += other.lost
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.slowest_inside_s = max(self.slowest_inside_s, other.slowest_inside_s)
        self.violations += other.violations


@dataclass(frozen=True)
class Struck:
    """Observations of one fault, and the seconds from the server's return until every worker had recovered."""

    tally: Tally
    recovery_s: float


class Ledger:
    """Record of keys, and checks of the responses to them.

    Args:
        policy: Outage policy of the workers, ``local`` or ``deny``.
        may_refuse: Whether 503 is permitted for requests with a key (policy ``deny``, or database unavailable).
    """

    def __init__(self, policy: str, may_refuse: bool) -> None:
        self.policy = policy
        self.may_refuse = may_refuse
        self.keys: dict[str, KeyRecord] = {}
        self.owners: list[OwnerRecord] = []
        self.live: list[Credential] = []
        self.capped: list[Credential] = []
        self.dead: list[Credential] = []
        self.unsure: list[Credential] = []
        self.total = Tally()
        self.examples: list[str] = []
        self.answered_by: Counter[int] = Counter()
        self.admitted_at: defaultdict[int, list[float]] = defaultdict(list)
        """When each worker admitted a request, on the monotonic clock."""
        self.data_lost_at: list[float] = []
        self._open: list[Tally] = [self.total]

    @contextmanager
    def tally(self) -> Iterator[Tally]:
        """Yield figures of the responses that arrive inside the block."""
        tally = Tally()
        self._open.append(tally)
        try:
            yield tally
        finally:
            self._open.remove(tally)

    def made(
        self, key_id: str, token: str, limit: int | None, at: float, owner: OwnerRecord | None = None
    ) -> Credential:
        """Record a key that was acknowledged with 201."""
        record = self.keys[key_id] = KeyRecord(key_id, limit, at, owner=owner)
        credential = Credential(token, record, sure_from=at)
        if owner is not None:
            owner.credentials.append(credential)
        else:
            (self.live if limit is None else self.capped).append(credential)
        return credential

    def lost(self) -> None:
        """Record a request whose connection ended without a response."""
        for tally in self._open:
            tally.lost += 1

    def hung(self, what: str) -> None:
        """Record a request that got no response within any reasonable time."""
        self._violate(HUNG, what)

    def note(self, answer: Answer, what: str) -> None:
        """Count a response, and check the rules for all responses."""
        self.answered_by[answer.worker] += 1
        took_s = answer.ended_at - answer.began_at
        inside_s = float(answer.headers.get("took-ms", 0)) / 1000
        is_allowed_503 = answer.outcome == (503, "temporarily_unavailable") and (
            "retry-after" in answer.headers or "holds_within_s" in answer.body
        )
        for tally in self._open:
            tally.requests += 1
            tally.slowest_s = max(tally.slowest_s, took_s)
            tally.slowest_inside_s = max(tally.slowest_inside_s, inside_s)
            tally.unavailable += is_allowed_503
        if answer.status >= 500 and not is_allowed_503:
            self._violate(ERROR, f"{what}: {answer.outcome}")

    def judge(self, answer: Answer, credential: Credential) -> None:
        """Check the response to a request with a key."""
        outcome = answer.outcome
        if answer.status == 200:
            self._admitted(answer, credential)
        elif outcome in REFUSED_KEY:
            if answer.began_at > credential.sure_from:
                self._violate(
                    REFUSED_LIVE, f"{outcome} {answer.began_at - credential.sure_from:.3f} s after it was sure"
                )
        elif outcome == SUSPENDED and credential.key.owner is not None:
            if answer.began_at > credential.key.owner.sure_from:
                self._violate(REFUSED_LIVE, f"{outcome} after its owner was resumed")
        elif outcome == (429, "rate_limit_exceeded"):
            limited = credential.key.owner or credential.key
            limited.is_full = True
            if limited.limit is None:
                self._violate(REFUSED_LIVE, str(outcome))
        elif answer.status == 503:
            if not self.may_refuse:
                self._violate(ERROR, f"503 under the policy {self.policy} with the database there")
        elif answer.status < 500:
            self._violate(ODD, str(outcome))

    def expect(self, answer: Answer, allowed: Set[Outcome], what: str) -> None:
        """Check the response to any other request. A 503 was checked before."""
        if answer.outcome not in allowed and answer.status < 500:
            self._violate(ODD, f"{what}: {answer.outcome}")

    def _admitted(self, answer: Answer, credential: Credential) -> None:
        late_s = answer.began_at - credential.dead_from
        if late_s > 0:
            self._violate(ADMITTED_DEAD, f"{late_s:.3f} s after it was to hold")
        key = credential.key
        self.admitted_at[answer.worker].append(answer.ended_at)
        key.workers.add(answer.worker)
        said = dict(part.split("=") for part in answer.headers.get("ratelimit", "").split(";")[1:])
        ends_at = time.time() - (time.monotonic() - answer.ended_at) + int(said.get("t", 0))
        # The window's end, on the hour; without an hourly limit no end is reported.
        hour = round(ends_at / HOUR_S) - 1 if said else int(ends_at / HOUR_S)
        key.admitted[hour] += 1
        limited: Record = key
        if key.owner is not None:
            limited = key.owner
            limited.workers.add(answer.worker)
            limited.admitted[hour] += 1
            late_s = answer.began_at - key.owner.dead_from
            if late_s > 0:
                self._violate(ADMITTED_SUSPENDED, f"{late_s:.3f} s after it was to hold")
        limited.began_at[hour].append(answer.began_at)

    def over_cap(self) -> int:
        """Return the number of requests admitted beyond the promised limit, over all keys, owners and hours."""
        return sum(map(self.over_limit, (*self.keys.values(), *self.owners)))

    def over_limit(self, record: Record) -> int:
        """Return the number of requests admitted beyond the promised limit of a key or owner, over all hours."""
        if record.limit is None:
            return 0
        most = record.limit * self._lives(record)
        return sum(max(0, count - most) for count in record.admitted.values())

    def limited(self) -> list[Record]:
        """Return all keys and owners with a limit."""
        return [record for record in (*self.keys.values(), *self.owners) if record.limit is not None]

    def surely_counted(self, record: Record, hour: int) -> int:
        """Return the number of requests admitted in an hour that Redis must still have counted.

        Not those that it may have counted before it lost its data, also by leases.
        """
        since = max(self.data_lost_at, default=-math.inf) + LEASE_S
        return sum(at > since for at in record.began_at[hour])

    def uncounted(self, record: Record, hour: int, units: int) -> int:
        """Return the number of requests that were admitted without being counted.

        Args:
            record: A key or owner with a limit.
            hour: Hours since 1970.
            units: The units of that hour that Redis has counted.
        """
        return max(0, self.surely_counted(record, hour) - units - (record.limit or 0) * self._alone(record))

    def _lives(self, record: Record) -> int:
        """Return how often a limit may be used.

        Once, once more each time that Redis lost its data, and in an outage by each worker that counts alone.
        """
        return 1 + sum(at > record.made_at for at in self.data_lost_at) + self._alone(record)

    def _alone(self, record: Record) -> int:
        """Return how many workers may have counted a limit by themselves during outages."""
        return len(record.workers) if self.policy == "local" else 0

    def _violate(self, kind: str, what: str) -> None:
        for tally in self._open:
            tally.violations[kind] += 1
        if len(self.examples) < 50:
            self.examples.append(f"{kind}: {what}")
