"""From a token to a verified key: the tag, the hash, and the cache of keys that were verified before."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.tokens import ParsedToken, secret_tag
from fastapi_keyauth.errors import TemporarilyUnavailable
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.telemetry.counters import Metrics

NEGATIVE_TTL_S = 5.0
"""Seconds for which a wrong token is remembered, so that a client that repeats it costs no reads."""
NEGATIVE_GRACE_S = 1.0
"""Seconds for which it is still taken for wrong while one request looks again."""
MAX_NEGATIVE = 4096


Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key whose secret was verified, as its row was at one moment.

    Attributes:
        key: the row.
        has_conditions: of the row; looked up once for all requests.
        generation: what the limiter gave out before the row was read, so that a later change shows.
        read_at: when the row was read, on the monotonic clock.
    """

    key: KeySnapshot
    has_conditions: bool
    generation: str
    read_at: float


class Verifier:
    """Verifies tokens and remembers what it verified, by the token's digest, least recently used out first.

    What it remembers is no proof that the row is current: the caller has the limiter compare generations.

    Args:
        store: has the rows.
        hasher: compares secrets.
        cache_size: verified secrets that are remembered; and so many of dead keys, apart: they cost their sender no
            unit of a cap, and must not push out those that are in use.
        metrics: told what is looked up.
        now: the time, UTC.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self,
        store: KeyStore,
        hasher: Hasher,
        cache_size: int,
        metrics: Metrics,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._cache_size = cache_size
        self._metrics = metrics
        self._now = now
        self._monotonic = monotonic
        self._verified: OrderedDict[bytes, VerifiedKey] = OrderedDict()
        self._inactive: OrderedDict[bytes, VerifiedKey] = OrderedDict()
        """Verified as well, and disabled, revoked or expired when the row was read."""
        self._negative: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        """Digest to (until when, key id)."""
        self._running: dict[tuple[bytes, int], asyncio.Task[bool]] = {}
        self._readings: dict[tuple[bytes, str], tuple[float, asyncio.Task[VerifiedKey | None]]] = {}
        """Digest and generation to when it began, and the reading."""
        self._distrusted_at = -math.inf

    def find_verified(self, digest: bytes) -> VerifiedKey | None:
        """The key if the token with this digest was verified before. No I/O."""
        for kept in (self._verified, self._inactive):
            verified = kept.get(digest)
            if verified is not None:
                kept.move_to_end(digest)
                return verified if verified.read_at > self._distrusted_at else None
        return None

    def distrust_rows(self) -> None:
        """Read every row again before it is used, because the database was unavailable meanwhile."""
        self._distrusted_at = self._monotonic()
        self._negative.clear()

    def forget_all(self) -> None:
        """Forget every row and every verified secret, because the database was restored or replaced."""
        self.distrust_rows()
        self._verified.clear()
        self._inactive.clear()

    def age_s(self, verified: VerifiedKey) -> float:
        """Seconds since the row was read."""
        return self._monotonic() - verified.read_at

    def find_negative(self, digest: bytes) -> str | None:
        """The key id in a token that was found wrong a moment ago; None for any other token. No I/O."""
        known = self._negative.get(digest)
        if known is None:
            return None
        until, key_id = known
        now = self._monotonic()
        if until <= now:
            # Who asks first looks again; those who come meanwhile need not.
            self._negative[digest] = (now + NEGATIVE_GRACE_S, key_id)
            return None
        return key_id

    async def read(
        self, token: ParsedToken, digest: bytes, generation: str, share_s: float = 0.0
    ) -> VerifiedKey | None:
        """Read the key's row and verify the secret; Argon2 runs only for a secret not verified in this process yet.

        A key in heavy use that was changed, or has grown old, is read once for all requests that wait for it.

        Args:
            token: what the client sent.
            digest: of the whole of it.
            generation: given out by the limiter before this call.
            share_s: how long ago a reading under the same generation may have begun that will do.

        Returns:
            None for an unknown id or a wrong secret.

        Raises:
            StoreUnavailable: the database cannot answer.
            HasherUnavailable: Argon2 cannot run, or too many wait for it.
        """
        if not share_s:
            return await self._read(token, digest, generation)
        name = (digest, generation)
        began, reading = self._readings.get(name, (-math.inf, None))
        if reading is None or self._monotonic() - began > share_s or began <= self._distrusted_at:
            # A task also where there is no generation, and so nobody to share with: an id that does not exist would
            # else be refused sooner than one that does.
            reading = asyncio.create_task(self._read(token, digest, generation), name="keyauth-read")
            if generation:
                self._readings[name] = (self._monotonic(), reading)
            reading.add_done_callback(lambda done: self._forget_reading(name, done))
        return await outcome_of(reading)

    async def close(self) -> None:
        """Come to an end with what goes on behind requests: nothing here."""

    def _forget_reading(self, name: tuple[bytes, str], reading: asyncio.Task[VerifiedKey | None]) -> None:
        if self._readings.get(name, (0, None))[1] is reading:
            del self._readings[name]
        if not reading.cancelled():
            reading.exception()  # so that asyncio does not complain where all who waited have gone

    async def _read(self, token: ParsedToken, digest: bytes, generation: str) -> VerifiedKey | None:
        read_at = self._monotonic()
        tag = secret_tag(token.secret)
        try:
            with self._metrics.span("keyauth.read_key", token.key_id):
                found = await self._store.find_for_token(token.key_id, tag)
        except TemporarilyUnavailable:
            self._negative.pop(digest, None)  # what nobody could look up again is not known
            raise
        for key, secret_hash in found:
            if key.environment != token.environment:
                continue  # a token of this key with another environment was never given out
            verified = VerifiedKey(key, key.has_conditions, generation, read_at)
            # A row of secrets is never changed, so one that was verified stays verified.
            before = self._verified.get(digest) or self._inactive.get(digest)
            is_known = before is not None and before.key.secret_id == key.secret_id
            if is_known or await self._verify(token.secret, digest, verified, secret_hash):
                return self._remember(digest, verified)
        self._remember_wrong(digest, token.key_id)
        return None

    async def _verify(self, secret: str, digest: bytes, verified: VerifiedKey, secret_hash: str) -> bool:
        """Argon2, once for all requests that wait for the same answer."""
        name = (digest, verified.key.secret_id)
        running = self._running.get(name)
        if running is None:
            running = asyncio.create_task(self._hash(secret, digest, verified, secret_hash), name="keyauth-verify")
            self._running[name] = running
            running.add_done_callback(lambda _: self._running.pop(name, None))
        return await outcome_of(running)

    async def _hash(self, secret: str, digest: bytes, verified: VerifiedKey, secret_hash: str) -> bool:
        key = verified.key
        verify = self._hasher.verify_inactive if self._is_dead(key) else self._hasher.verify
        is_right = await verify(secret_hash, secret, key.owner_id)
        if is_right:
            # Before this task ends: whoever comes next finds the task or its result, never neither.
            self._remember(digest, verified)
        return is_right

    def _is_dead(self, key: KeySnapshot) -> bool:
        return key.has_conditions and key.status(self._now()) != "active"

    def _remember(self, digest: bytes, verified: VerifiedKey) -> VerifiedKey:
        self._forget(digest)
        if verified.read_at <= self._distrusted_at:
            return verified  # good for the request that read it
        kept = self._inactive if self._is_dead(verified.key) else self._verified
        kept[digest] = verified
        while len(kept) > self._cache_size:
            kept.popitem(last=False)
        return verified

    def _forget(self, digest: bytes) -> None:
        for known in (self._negative, self._verified, self._inactive):
            known.pop(digest, None)

    def _remember_wrong(self, digest: bytes, key_id: str) -> None:
        self._forget(digest)
        self._negative[digest] = (self._monotonic() + NEGATIVE_TTL_S, key_id)
        while len(self._negative) > MAX_NEGATIVE:
            self._negative.popitem(last=False)


async def outcome_of(task: asyncio.Task[Outcome]) -> Outcome:
    """What a task comes to that several requests wait for. One that goes away must not take it from the others."""
    try:
        return await asyncio.shield(task)
    except TemporarilyUnavailable as error:
        # One exception object for each: a shared one would collect every asker's traceback.
        raise type(error)(*error.args) from None
