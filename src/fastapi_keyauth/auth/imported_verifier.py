"""Verifies tokens of imported keys: found by a lookup, verified by the hash they came with, then hashed by us.

The row of such a secret is found by ``lookup`` for good. Until its first use it has the hash that was imported; from
then on ours, of the whole token, and a tag that turns wrong tokens away.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.key_cache import KeyCache, VerifiedKey
from fastapi_keyauth.auth.secret_check import SecretCheck
from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.domain.tokens import is_same_secret, secret_tag
from fastapi_keyauth.errors import HasherUnavailable, TemporarilyUnavailable
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.store.imported_keys import ImportedSecret
from fastapi_keyauth.telemetry.counters import Metrics

logger = logging.getLogger("fastapi_keyauth")

MAX_TRIED = 8
"""Tokens that are hashed concurrently for one secret: one is right, the others are guesses that no tag rejects, which
all passed the check for a block before the first is found wrong."""


class ImportedVerifier:
    """Verifies tokens of imported keys.

    Args:
        store: Reads the rows.
        hasher: Compares secrets, and hashes them again.
        key_cache: Verified keys and wrong tokens.
        metrics: Spans around reads.
        monotonic: Seconds that only go forward.
        forms: Which values are looked up.
    """

    def __init__(
        self,
        store: KeyStore,
        hasher: Hasher,
        key_cache: KeyCache,
        metrics: Metrics,
        monotonic: Callable[[], float],
        forms: foreign.ImportedForms,
    ) -> None:
        self.forms = forms
        self._store = store
        self._hasher = hasher
        self._key_cache = key_cache
        self._metrics = metrics
        self._monotonic = monotonic
        self._secrets = SecretCheck(hasher, key_cache)
        self._hashes: SingleFlight[tuple[bytes, int], bool] = SingleFlight("keyauth-verify")
        self._adoptions: SingleFlight[int, None] = SingleFlight("keyauth-adopt")
        self._tried: Counter[int] = Counter()
        """Secret to number of tokens that are hashed for it now."""

    async def find_key_id(self, text: str, digest: bytes) -> str | None:
        """Return the id of the key that a token would belong to. None, cached for a moment, if no row fits.

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
            text: What the client sent.
            digest: Its digest.
            key_id: The key that it is expected to open, and whose generation it is.
            generation: Given out by the limiter before this call.

        Returns:
            None for a token that no row fits, or a wrong one.

        Raises:
            StoreUnavailable: If the database is unavailable.
            HasherUnavailable: If hashes cannot run, or too many wait for them.
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
        """Wait for tokens that are being hashed again."""
        await self._adoptions.settle()

    async def _find(self, text: str, digest: bytes) -> ImportedSecret | None:
        lookups = foreign.candidate_lookups(text)
        try:
            with self._metrics.span("keyauth.read_key"):
                found = await self._store.imports.find(list(lookups))
        except TemporarilyUnavailable:
            self._key_cache.forget_negative(digest)  # what nobody could read again is not known
            raise
        # One at most is tried: the token itself before its public parts, and the longest of those.
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
        """Hash the token our way in the background. If it fails, it is tried again when the row is next read."""
        self._adoptions.start(secret.key.secret_id, partial(self._adopt, text, secret))

    async def _adopt(self, text: str, secret: ImportedSecret) -> None:
        try:
            if await self._store.imports.is_adopted(secret.key.secret_id, secret.hash):
                return  # the row was read before that
            scheme = secret.scheme or ""
            hashed = foreign.hashed_part(text, scheme, secret.public)
            adopted = foreign.adopted_scheme(text, scheme, secret.public)
            phc = await self._hasher.hash(hashed, secret.key.owner_id)
            values: dict[str, Any] = {"hash": phc, "tag": secret_tag(hashed), "scheme": adopted}
            if adopted is None or not adopted.endswith("72"):  # otherwise the end may not be that of the token
                values["last4"] = text[-4:]
            await self._store.imports.adopt(secret.key.secret_id, secret.hash, values)
        except Exception as error:
            # Such as a role that may only read. The request was right all the same.
            expected = isinstance(error, TemporarilyUnavailable | HasherUnavailable)
            logger.warning(
                "an imported secret of key %s keeps its old hash for now: %s",
                secret.key.id,
                type(error).__name__,
                exc_info=None if expected else error,
                extra={"keyauth_event": "not_rehashed", "key_id": secret.key.id, "reason": type(error).__name__},
            )
