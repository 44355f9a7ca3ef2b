"""Verification of tokens of imported keys: found by a lookup, verified by the imported hash, then hashed again by us.

The row of such a secret is always found by ``lookup``. Until its first use it holds the imported hash. After that it
holds our own hash, and a tag that rejects wrong tokens before Argon2 runs.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.key_cache import KeyCache, VerifiedKey
from fastapi_keyauth.auth.secret_check import SecretCheck
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.domain.tokens import is_same_secret, secret_tag
from fastapi_keyauth.errors import HasherUnavailable, TemporarilyUnavailable
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.store.imported_keys import ImportedSecret
from fastapi_keyauth.telemetry.counters import Metrics

logger = logging.getLogger("fastapi_keyauth")

MAX_TRIED = 8
"""Maximum number of tokens that are hashed concurrently for one secret. At most one is valid. The others are guesses:
no tag rejects them yet, and they passed the check for a block before the first one was found invalid."""


class ImportedVerifier:
    """Verifies tokens of imported keys.

    Args:
        store: Reads the rows.
        hasher: Compares secrets, and hashes them again.
        key_cache: Cache of verified keys and invalid tokens.
        metrics: Records spans around reads.
        monotonic: Returns seconds of a monotonic clock.
        forms: Decides which values are looked up.
        tickets: Verification tickets of secrets that were hashed again.
    """

    def __init__(
        self,
        store: KeyStore,
        hasher: Hasher,
        key_cache: KeyCache,
        metrics: Metrics,
        monotonic: Callable[[], float],
        forms: foreign.ImportedForms,
        tickets: Tickets | None = None,
    ) -> None:
        self.forms = forms
        self._store = store
        self._hasher = hasher
        self._key_cache = key_cache
        self._metrics = metrics
        self._monotonic = monotonic
        self._secrets = SecretCheck(hasher, key_cache, tickets)
        self._hashes: SingleFlight[tuple[bytes, int], bool] = SingleFlight("keyauth-verify")
        self._adoptions: SingleFlight[int, None] = SingleFlight("keyauth-adopt")
        self._tried: Counter[int] = Counter()
        """Secret id to the number of tokens that are currently hashed for it."""

    async def find_key_id(self, text: str, digest: bytes) -> str | None:
        """Return the id of the key that a token would belong to. None if no row matches, which is cached briefly.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        secret = await self._find(text, digest)
        if secret is None:
            self._key_cache.add_negative(digest, "")
        return None if secret is None else secret.key.id

    async def read(self, text: str, digest: bytes, key_id: str, generation: str) -> VerifiedKey | None:
        """Read the key's row and verify the token.

        Args:
            text: The token that the client sent.
            digest: Digest of the token.
            key_id: Id of the key that the token is expected to belong to.
            generation: Generation of that key, returned by the limiter before this call.

        Returns:
            The verified key. None if no row matches the token, or if the token is invalid.

        Raises:
            StoreUnavailable: If the database is unavailable.
            HasherUnavailable: If hashes cannot run, or if too many requests wait for one.
        """
        read_at = self._monotonic()
        secret = await self._find(text, digest)
        if secret is not None and secret.key.id == key_id:
            verified = VerifiedKey(secret.key, secret.key.has_conditions, generation, read_at)
            if self._key_cache.has_verified(digest, secret.key) or await self._is_right(text, digest, verified, secret):
                if not foreign.is_adopted(secret.scheme):
                    self._adopt_soon(text, secret)
                return self._key_cache.add(digest, verified)
        self._key_cache.add_negative(digest, key_id)
        return None

    async def close(self) -> None:
        """Wait until all tokens that are being hashed again are stored, or have failed."""
        await self._adoptions.settle()

    async def _find(self, text: str, digest: bytes) -> ImportedSecret | None:
        lookups = foreign.candidate_lookups(text)
        try:
            with self._metrics.span("keyauth.read_key"):
                found = await self._store.imports.find(list(lookups))
        except TemporarilyUnavailable:
            self._key_cache.forget_negative(digest)  # it could not be confirmed by another read
            raise
        # At most one row is tried: that of the whole token, otherwise that of its longest public part.
        best = next((lookup for lookup in lookups if lookup in found), None)
        return None if best is None else found[best].with_public(lookups[best])

    async def _is_right(self, text: str, digest: bytes, verified: VerifiedKey, secret: ImportedSecret) -> bool:
        hashed = foreign.hashed_part(text, secret.scheme, secret.public)
        if secret.scheme is None or foreign.is_adopted(secret.scheme):
            return is_same_secret(secret.tag, secret_tag(hashed)) and await self._secrets.verify(
                hashed, digest, verified, secret.hash
            )
        if not foreign.is_slow(secret.scheme):
            return foreign.verify(secret.scheme, secret.hash, hashed)
        name = (digest, secret.key.secret_id)
        if not self._hashes.is_running(name):
            if self._tried[secret.key.secret_id] >= MAX_TRIED:
                raise self._hasher.too_many("imported keys not used before")
            self._tried[secret.key.secret_id] += 1
        check = partial(self._hash_foreign, digest, verified, secret, secret.scheme, hashed)
        return await self._hashes.run(name, check)

    async def _hash_foreign(
        self, digest: bytes, verified: VerifiedKey, secret: ImportedSecret, scheme: str, hashed: str
    ) -> bool:
        id = secret.key.secret_id
        try:
            is_right = await self._hasher.verify_foreign(scheme, secret.hash, hashed, secret.key.owner_id)
            if is_right:
                self._key_cache.add(digest, verified)  # before this task ends, as in SecretCheck
            return is_right
        finally:
            self._tried[id] -= 1
            if not self._tried[id]:
                del self._tried[id]

    def _adopt_soon(self, text: str, secret: ImportedSecret) -> None:
        """Replace the imported hash by our own in the background. A failure is retried when the row is read next."""
        self._adoptions.start(secret.key.secret_id, partial(self._adopt, text, secret))

    async def _adopt(self, text: str, secret: ImportedSecret) -> None:
        try:
            if await self._store.imports.is_adopted(secret.key.secret_id, secret.hash):
                return  # the secret was adopted after the row had been read
            scheme = secret.scheme or ""
            hashed = foreign.hashed_part(text, scheme, secret.public)
            adopted = foreign.adopted_scheme(text, scheme, secret.public)
            phc = await self._hasher.hash(hashed, secret.key.owner_id)
            values: dict[str, Any] = {"hash": phc, "tag": secret_tag(hashed), "scheme": adopted}
            if adopted is None or not adopted.endswith("72"):  # otherwise the last characters are not verified
                values["last4"] = text[-4:]
            await self._store.imports.adopt(secret.key.secret_id, secret.hash, values)
        except Exception as error:
            # For example, a database role that may only read. The request is valid nevertheless.
            expected = isinstance(error, TemporarilyUnavailable | HasherUnavailable)
            logger.warning(
                "an imported secret of key %s keeps its old hash for now: %s",
                secret.key.id,
                type(error).__name__,
                exc_info=None if expected else error,
                extra={"keyauth_event": "not_rehashed", "key_id": secret.key.id, "reason": type(error).__name__},
            )
