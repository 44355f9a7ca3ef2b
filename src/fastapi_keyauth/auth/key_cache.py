"""Tokens that this worker found valid or invalid, by digest."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.limiter.protocol import Allowance

NEGATIVE_TTL_S = 5.0
"""Seconds for which an invalid token is cached, so that a client that repeats it costs no reads."""
NEGATIVE_GRACE_S = 1.0
"""Seconds for which the token still counts as invalid while one request reads its row again."""
MAX_NEGATIVE = 4096


@dataclass(slots=True)
class VerifiedKey:
    """A key whose secret was verified, in the state of its row at one moment.

    Attributes:
        key: The row.
        has_conditions: ``has_conditions`` of the row, computed once for all requests.
        generation: The generation that the limiter returned before the row was read; a later change replaces it.
        read_at: When the row was read, on the monotonic clock.
        allowance: Admits further requests at the cost of one request. None: the limiter decides.
    """

    key: KeySnapshot
    has_conditions: bool
    generation: str
    read_at: float
    allowance: Allowance | None = field(default=None, compare=False)


class KeyCache:
    """Cache of verified keys, which evicts the least recently used, and of invalid tokens. No I/O.

    A cached row may be outdated: the caller has the limiter compare generations.

    Args:
        size: Maximum number of verified secrets. As many secrets of inactive keys are cached separately: they cost
            their sender no unit of a rate limit, and must not evict those that are in use.
        now: Returns the current time, UTC.
        monotonic: Returns seconds of a monotonic clock.

    Attributes:
        distrusted_at: Rows that were read up to this moment are not used, on the monotonic clock.
    """

    def __init__(self, size: int, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._verified: BoundedDict[bytes, VerifiedKey] = BoundedDict(size)
        self._inactive: BoundedDict[bytes, VerifiedKey] = BoundedDict(size)
        """Verified secrets of keys that were disabled, revoked or expired when the row was read."""
        self._negative: BoundedDict[bytes, tuple[float, str]] = BoundedDict(MAX_NEGATIVE)
        """Digest to (until when, key id)."""
        self.distrusted_at = -math.inf

    def __len__(self) -> int:
        """Return the number of verified secrets of keys that were active."""
        return len(self._verified)

    def find(self, digest: bytes) -> VerifiedKey | None:
        """Return the key if the token with this digest was verified before."""
        kept = self._verified
        verified = kept.get(digest)
        if verified is None:
            kept = self._inactive
            verified = kept.get(digest)
            if verified is None:
                return None
        kept.move_to_end(digest)
        return verified if verified.read_at > self.distrusted_at else None

    def find_negative(self, digest: bytes) -> str | None:
        """Return the key id in a token that was recently found invalid, or None for any other token."""
        known = self._negative.get(digest)
        if known is None:
            return None
        until, key_id = known
        now = self._monotonic()
        if until <= now:
            # This request reads the row again; concurrent ones need not.
            self._negative[digest] = (now + NEGATIVE_GRACE_S, key_id)
            return None
        return key_id

    def has_verified(self, digest: bytes, key: KeySnapshot) -> bool:
        """Return whether this secret was verified before. Rows of secrets never change, so it still is."""
        before = self._verified.get(digest) or self._inactive.get(digest)
        return before is not None and before.key.secret_id == key.secret_id

    def is_inactive(self, key: KeySnapshot) -> bool:
        """Return whether a key is disabled, revoked or expired."""
        return key.has_conditions and key.status(self._now()) != "active"

    def add(self, digest: bytes, verified: VerifiedKey) -> VerifiedKey:
        """Cache a verified key, and return it."""
        self.forget(digest)
        if verified.read_at <= self.distrusted_at:
            return verified  # valid for the request that read it
        kept = self._inactive if self.is_inactive(verified.key) else self._verified
        kept[digest] = verified
        return verified

    def add_negative(self, digest: bytes, key_id: str) -> None:
        """Cache an invalid token. The key id is empty if the token contains none."""
        self.forget(digest)
        self._negative[digest] = (self._monotonic() + NEGATIVE_TTL_S, key_id)

    def forget_negative(self, digest: bytes) -> None:
        """Forget an invalid token whose row could not be read again."""
        self._negative.pop(digest, None)

    def forget(self, digest: bytes) -> None:
        """Forget a token."""
        for known in (self._negative, self._verified, self._inactive):
            known.pop(digest, None)

    def distrust_rows(self) -> None:
        """Require every row to be read again before it is used, because the database was unavailable."""
        self.distrusted_at = self._monotonic()
        self._negative.clear()

    def clear(self) -> None:
        """Forget every row and every verified secret, because the database was restored or replaced."""
        self.distrust_rows()
        self._verified.clear()
        self._inactive.clear()
