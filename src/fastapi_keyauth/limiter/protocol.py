"""What every limiter answers, and the policy that all of them keep."""

from collections.abc import Awaitable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol

from fastapi_keyauth.settings.checks import CheckWarning
from fastapi_keyauth.settings.settings import KeyAuthSettings


class Verdict(IntEnum):
    """What a limiter says to one request. The numbers are those of ``redis/lua/take.lua``."""

    ADMITTED = 0
    """Nothing stands against it, and the unit asked for was used."""
    LIMITED = 1
    """The key's cap is used up; nothing was used."""
    BLOCKED = 2
    """The address is blocked; nothing was used."""
    STALE = 3
    """The key may have changed since its row was read: read it again. Nothing was used."""


class LimitCheck(NamedTuple):
    """One question for one request: is the address blocked, has the key changed, is there a unit of its hour left?

    Attributes:
        key_id: the key.
        bucket: what the address is counted under; None where no block is to be looked at.
        limit: the key's cap, requests per hour; None for no cap.
        units: 1 to use a unit, 0 only to look.
        generation: what was given out before the row was read; "" for a row that nobody has proof of.
        age_s: seconds since the row was read; None where the asker has no row. Only who has one leaves a trace of the
            key in the limiter, so what strangers ask about cannot fill it.
        is_fresh: whether the row was read for this very request, which is proof enough.
    """

    key_id: str
    bucket: str | None
    limit: int | None = None
    units: int = 0
    generation: str = ""
    age_s: float | None = None
    is_fresh: bool = False


class Decision(NamedTuple):
    """The answer to an ``LimitCheck``.

    Attributes:
        verdict: see ``Verdict``.
        generation: opaque; it is another one after every change to the key. "" where none is known.
        remaining: units left in the window, None without a cap.
        reset_at_s: when the window ends, in seconds since 1970, on the limiter's clock.
        wait_s: whole seconds, at least 1, until it is worth trying again, or until the window ends (ADMITTED).
        hour: the window, in hours since 1970.
        share_s: for how many seconds a reading of the row that began under this generation may serve other requests
            that are told the same generation. 0: each must read for itself.
    """

    verdict: Verdict
    generation: str = ""
    remaining: int | None = None
    reset_at_s: int = 0
    wait_s: int = 0
    hour: int = 0
    share_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How many failures, within what, block for how long; and how an hour is counted. Durations in milliseconds."""

    block_after_failures: int
    failure_window_ms: int
    block_for_ms: int
    algorithm: Literal["fixed_window", "sliding_window"]

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "Policy":
        """The policy that the settings ask for."""
        return cls(
            block_after_failures=settings.block_after_failures,
            failure_window_ms=settings.failure_window_s * 1000,
            block_for_ms=settings.block_for_s * 1000,
            algorithm=settings.rate_limit_algorithm,
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

    async def bump_generation(self, key_id: str) -> None:
        """Give the key another generation. When this returns, no older row is taken for current anywhere."""

    async def blocks(self) -> dict[str, int]:
        """What is blocked: bucket to whole seconds left, at least 1."""

    async def unblock(self, bucket: str) -> bool:
        """Forget a block and failed attempts. Whether there was a block."""

    async def run_checks(self) -> list[CheckWarning]:
        """What about the server is allowed and dangerous, as far as it may be asked. Never raises."""


def ceil_s(milliseconds: int) -> int:
    """Whole seconds that cover a duration, at least 1: what ``Retry-After`` wants."""
    return max(1, -(-milliseconds // 1000))
