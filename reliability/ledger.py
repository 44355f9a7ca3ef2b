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
    units: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often each unit was used, by hour and reported remainder."""
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
        if said:
            limited.units[hour, int(said["r"])] += 1

    def over_cap(self) -> int:
        """Return the number of requests admitted beyond the promised limit, over all keys, owners and hours."""
        return sum(map(self.over_limit, (*self.keys.values(), *self.owners)))

    def over_limit(self, record: Record) -> int:
        """Return the number of requests admitted beyond the promised limit of a key or owner, over all hours."""
        if record.limit is None:
            return 0
        most = record.limit * self._lives(record)
        return sum(max(0, count - most) for count in record.admitted.values())

    def units_given_twice(self) -> int:
        """Return the number of units of keys and owners used more often than promised."""
        return sum(
            max(0, times - self._lives(record))
            for record in (*self.keys.values(), *self.owners)
            for times in record.units.values()
        )

    def _lives(self, key: Record) -> int:
        """Return how often the same unit may be used.

        Once, once more each time that Redis lost its data, and in an outage under the policy ``local`` once by each
        worker.
        """
        lost = sum(at > key.made_at for at in self.data_lost_at)
        return 1 + lost + (len(key.workers) if self.policy == "local" else 0)

    def _violate(self, kind: str, what: str) -> None:
        for tally in self._open:
            tally.violations[kind] += 1
        if len(self.examples) < 50:
            self.examples.append(f"{kind}: {what}")
