"""What every limiter answers, and the policy that all of them keep."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from fastapi_keyauth.domain.limits import NO_LIMITS, Cost, LimitSet
from fastapi_keyauth.settings.checks import CheckWarning
from fastapi_keyauth.settings.settings import KeyAuthSettings

SETTLED_S = 60
"""Seconds for which a settled charge is remembered: a second try of its charge that comes late must charge nothing."""


class Verdict(IntEnum):
    """What a limiter says to one request. The numbers are those of ``redis/lua/take.lua``."""

    ADMITTED = 0
    """Nothing stands against it, and its cost was charged."""
    LIMITED = 1
    """A limit has no room for its cost; nothing was charged."""
    BLOCKED = 2
    """The address is blocked; nothing was charged."""
    STALE = 3
    """The key or its owner may have changed since the row was read: read it again. Nothing was charged."""


class Charge(NamedTuple):
    """A charge that has a name, so that a call which is sent twice charges once, and that can be settled.

    Attributes:
        id: Its name.
        keep_s: Seconds for which it is known.
        actual: What was used of each limit, to settle it. None: charge it.
    """

    id: str
    keep_s: int
    actual: tuple[int, ...] | None = None


class LimitCheck(NamedTuple):
    """One question for one request: is the address blocked, has the key changed, is there room for its cost?

    Attributes:
        key_id: The key.
        bucket: The name under which the address is counted. None: do not check for a block.
        limits: The limits of the key and of its owner.
        cost: What the request costs of each unit. None: charge nothing, and check no limit.
        generation: The key's and its owner's, as given out before the row was read; "" if unknown.
        age_s: Seconds since the row was read. None: the asker has no row. Only an asker with a row leaves a trace of
            the key in the limiter, so that questions of strangers cannot fill it.
        is_fresh: Whether the row was read for this very request, which is proof enough.
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
        share_s: Seconds for which a reading of the row that began under this generation may serve other requests that
            get the same generation. 0: each must read the row itself.
        states: Three whole numbers for each limit, in their order: the units that are left (never below 0), the seconds
            until its window ends (or, in a sliding window that refused, until the cost fits), and the end of its window
            in seconds since 1970. After them, if the verdict is LIMITED, the positions of the limits without room.
            Empty if no limit was checked.
    """

    verdict: Verdict
    generation: str = ""
    wait_s: int = 0
    hour: int = 0
    share_s: float = 0.0
    states: Sequence[int] = ()

    @property
    def remaining(self) -> int | None:
        """Units left of the first limit. None if no limit was checked."""
        return self.states[0] if self.states else None


@dataclass(frozen=True, slots=True)
class Policy:
    """How many failures, within what, block for how long. Durations in milliseconds."""

    block_after_failures: int
    failure_window_ms: int
    block_for_ms: int

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "Policy":
        """The policy that the settings ask for."""
        return cls(
            block_after_failures=settings.block_after_failures,
            failure_window_ms=settings.failure_window_s * 1000,
            block_for_ms=settings.block_for_s * 1000,
        )


class Limiter(Protocol):
    """Counts attempts and units. Every method may raise ``LimiterUnavailable``."""

    async def start(self) -> None:
        """Connect. Raises ``SetupError`` where the server refuses; one that does not answer is an outage."""

    async def close(self) -> None:
        """Let go of connections and tasks."""

    def check(self, ask: LimitCheck) -> Awaitable[Decision]:
        """Answer one question, atomically."""

    def known_block_s(self, bucket: str) -> int | None:
        """Whole seconds for which the address is blocked, as far as is known here without asking anybody; or None."""

    async def record_failure(self, bucket: str) -> int | None:
        """Count a failed attempt.

        None: counted. 0: counted, and it blocks the address from now on. More: not counted, as the address is blocked
        already, for that many whole seconds.
        """

    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        """Give a key another generation. When this returns, no worker takes an older row for current."""

    async def bump_owner_generation(self, owner_id: str) -> None:
        """Give an owner another generation: as ``bump_generation`` for all its keys, in one write."""

    async def blocks(self) -> dict[str, int]:
        """What is blocked: bucket to whole seconds left, at least 1."""

    async def unblock(self, bucket: str) -> bool:
        """Forget a block and failed attempts. Whether there was a block."""

    async def run_checks(self) -> list[CheckWarning]:
        """What about the server is allowed and dangerous, as far as it may be asked. Never raises."""


def ceil_s(milliseconds: int) -> int:
    """Whole seconds that cover a duration, at least 1: what ``Retry-After`` wants."""
    return max(1, -(-milliseconds // 1000))
