"""The protocol of limiters: questions, decisions, policy."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from fastapi_keyauth.domain.limit_sets import NO_LIMITS, Cost, LimitSet
from fastapi_keyauth.domain.usage import UsageCount, UsageOf
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.settings.settings import KeyAuthSettings

SETTLED_S = 60
"""Seconds for which a settled charge is stored: a retry of its charge that arrives late must charge nothing."""


class Unsettled(LimiterUnavailable):
    """A change is stored, but its server may be about to be replaced. Not an outage: checks are still answered."""


class Verdict(IntEnum):
    """The outcome of one check. The numbers are those of ``redis/lua/take.lua``."""

    ADMITTED = 0
    """Nothing prevents the request, and its cost was charged."""
    LIMITED = 1
    """A limit has no room for its cost; nothing was charged."""
    BLOCKED = 2
    """The address is blocked; nothing was charged."""
    STALE = 3
    """The key or its owner may have changed since the row was read: read it again. Nothing was charged."""
    WAITING = 4
    """A limit has no room until units that are out on lease come back: ask again then. Nothing was charged."""


ADMITTED, LIMITED, BLOCKED, STALE, WAITING = Verdict
"""The verdicts by name: before Python 3.12, ``Verdict.ADMITTED`` calls a function, which every request would notice."""


class Charge(NamedTuple):
    """A charge that has a name, so that a call which is sent twice charges once, and that can be settled.

    Attributes:
        id: Its name.
        keep_s: Seconds for which it is known.
        actual: What was used of each unit, to settle it. None: charge it.
        is_hold: Whether it is a reservation, whose units count as usage when it is settled.
    """

    id: str
    keep_s: int
    actual: Cost | None = None
    is_hold: bool = False


def usage_of(cost: Cost, charge: Charge | None) -> Cost:
    """Return the units that a charge adds to usage if it is carried out."""
    if charge is None:
        return cost
    if charge.actual is not None:
        return charge.actual
    return () if charge.is_hold else cost


class LimitCheck(NamedTuple):
    """A question about one request: is the address blocked, has the key changed, is there room for its cost?

    Attributes:
        key_id: The key.
        bucket: The name under which the address is counted. None: do not check for a block.
        limits: The limits of the key and of its owner.
        cost: What the request costs of each unit. None: charge nothing, and check no limit.
        generation: The key's and its owner's, as given out before the row was read; "" if unknown.
        age_s: Seconds since the row was read. None if the row is not known. Only a question with a row creates an
            entry of the key in the limiter, so that strangers cannot fill it.
        is_fresh: Whether the row was read for this very request, so that generations need not be compared.
        owner_id: The key's owner. None: not known yet.
        charge: The name of the charge, if it must survive a second try or can be settled.
    """

    key_id: str
    bucket: str | None
    limits: LimitSet = NO_LIMITS
    cost: Cost | None = None
    generation: str = ""
    age_s: float | None = None
    is_fresh: bool = False
    owner_id: str | None = None
    charge: Charge | None = None


class Decision(NamedTuple):
    """The answer to a ``LimitCheck``.

    Attributes:
        verdict: See ``Verdict``.
        generation: Opaque. It changes with every change to the key or to its owner. "" if unknown.
        wait_s: Whole seconds, at least 1, until a retry may succeed.
        hour: The hour of the limiter's clock, in hours since 1970.
        share_s: Seconds for which requests that get this generation may share one reading of the row. 0: each must read
            the row itself.
        states: Three whole numbers for each limit, in their order: the units that are left (never below 0), the seconds
            until its window ends (or, in a sliding window that refused, until the cost fits), and the end of its window
            in seconds since 1970. After them, if the verdict is LIMITED, the positions of the limits without room.
            Empty if no limit was checked.
        usage: Units that were charged and that this limiter does not count as usage: the process does. Redis counts
            them itself.
    """

    verdict: Verdict
    generation: str = ""
    wait_s: int = 0
    hour: int = 0
    share_s: float = 0.0
    states: Sequence[int] = ()
    usage: Cost = ()

    @property
    def remaining(self) -> int | None:
        """Units left of the first limit. None if no limit was checked."""
        return self.states[0] if self.states else None


class Allowance(Protocol):
    """Admits further requests like the one that was just decided, without another call to the limiter.

    It ends by itself, after a second at most, and whenever the same question would have another answer.

    Attributes:
        decision: The answer for all of them, except for ``states``, which ``take`` returns.
    """

    decision: Decision

    def take(self, bucket: str | None) -> Sequence[int] | None:
        """Charge one more request.

        Args:
            bucket: As in ``LimitCheck``.

        Returns:
            ``Decision.states`` after it. None if the limiter must be asked; nothing was charged then.
        """


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy for failed attempts.

    Attributes:
        block_after_failures: Failed attempts that block an address.
        failure_window_ms: Milliseconds within which they count together.
        block_for_ms: Milliseconds for which the address is blocked.
    """

    block_after_failures: int
    failure_window_ms: int
    block_for_ms: int

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "Policy":
        """Return the policy of the settings."""
        return cls(
            block_after_failures=settings.block_after_failures,
            failure_window_ms=settings.failure_window_s * 1000,
            block_for_ms=settings.block_for_s * 1000,
        )


class Limiter(Protocol):
    """Counts failed attempts and units.

    Every method except ``try_decide``, ``find_allowance``, ``known_block_s`` and ``run_checks`` raises
    ``LimiterUnavailable`` if the server of the counters is unavailable.

    Attributes:
        counts_usage: Whether it counts usage, which ``read_usage`` returns. If not, each decision says what was used.
    """

    counts_usage: bool = False

    async def start(self) -> None:
        """Connect.

        Raises:
            SetupError: If the server rejects the connection. A server that does not respond is an outage.
        """

    async def close(self) -> None:
        """Close connections, and end tasks."""

    def check(self, question: LimitCheck) -> Awaitable[Decision]:
        """Answer a question, and charge the cost of an admitted request, in one atomic step.

        Args:
            question: The question.
        """

    def try_decide(self, question: LimitCheck) -> Decision | None:
        """Answer a question as ``check`` does, if that takes no I/O. The request path calls it before each ``check``.

        Its answer is as good as that of ``check``, and charges the cost just as well.

        Args:
            question: The question.

        Returns:
            None if only ``check`` can answer. Nothing was charged then.
        """
        return None

    def find_allowance(self, question: LimitCheck) -> Allowance | None:
        """Return what admits further requests with a question that ``try_decide`` has just answered with ADMITTED.

        Args:
            question: The question, at the cost of one request.
        """
        return None

    def known_block_s(self, bucket: str) -> int | None:
        """Return the remaining duration of a block that this process knows, without any I/O.

        The request path calls it before each ``check``, which asks the server. ``try_decide`` considers such blocks
        itself.

        Args:
            bucket: Name under which the address is counted.

        Returns:
            Whole seconds, at least 1. None if no block is known.
        """

    async def record_failure(self, bucket: str) -> int | None:
        """Count a failed attempt.

        Args:
            bucket: Name under which the address is counted.

        Returns:
            None if the attempt was counted. 0 if it was counted and blocks the address. Otherwise the address was
            blocked already, the attempt was not counted, and this is the rest of the block in whole seconds.
        """

    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        """Replace the generation of a key. After this returns, no worker considers an older row current.

        Args:
            key_id: The key.
            owner_id: Its owner.
        """

    async def bump_owner_generation(self, owner_id: str) -> None:
        """Replace the generation of an owner: like ``bump_generation`` for all its keys, in one write.

        Args:
            owner_id: The owner.
        """

    async def read_ticket(self, key_id: str, secret_id: int) -> str | None:
        """Return the verification ticket of a secret, if workers share tickets and one is stored.

        Args:
            key_id: The key.
            secret_id: Its secret.
        """

    async def write_ticket(self, key_id: str, secret_id: int, ticket: str) -> None:
        """Replace the verification ticket of a secret.

        Args:
            key_id: The key.
            secret_id: Its secret.
            ticket: The ticket.
        """

    async def find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        """Return the current generations of keys and their owners, for requests that are running.

        Args:
            holders: Ids of keys, each with the id of its owner.

        Returns:
            One generation for each, as a ``Decision`` has it. "": nothing proves that a row of the key is current.
        """

    async def read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> list[UsageCount]:
        """Return the units that the limiter has counted of some keys.

        Args:
            wanted: The keys and hours. If all hours of a key are read, those that may be forgotten are deleted.
            forget_before: Hours since 1970. What was counted before may be forgotten: it is in closed days.

        Returns:
            One count for each key, hour and unit. Empty if the process counts usage itself.
        """

    async def blocks(self) -> dict[str, int]:
        """Return the blocked buckets, with the whole seconds left of each block, at least 1."""

    async def unblock(self, bucket: str) -> bool:
        """Delete a block and the failed attempts of an address.

        Args:
            bucket: Name under which the address is counted.

        Returns:
            Whether it was blocked.
        """

    async def run_checks(self) -> list[CheckWarning]:
        """Return warnings about risky settings of the server, as far as it can be checked. Never raises."""


def ceil_s(milliseconds: int) -> int:
    """Return the whole seconds that cover a duration, at least 1, for ``Retry-After``."""
    return max(1, -(-milliseconds // 1000))
