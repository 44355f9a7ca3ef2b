"""Verifies tokens of imported keys: found by a lookup, verified by the hash they came with, then hashed by us.

The row of such a secret is found by ``lookup`` for good. Until its first use it has the hash that was imported; from
then on ours, of the whole token, and a tag that turns wrong tokens away.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.verifier import VerifiedKey, Verifier, outcome_of
from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.domain.tokens import is_same_secret, secret_tag
from fastapi_keyauth.errors import HasherUnavailable, TemporarilyUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.store.imported_keys import ImportedSecret
from fastapi_keyauth.telemetry.counters import Metrics

logger = logging.getLogger("fastapi_keyauth")

ANY_KEY = "imported"
"""Asked for at the limiter before it is known which key a token belongs to; no key has such an id."""
MAX_TRIED = 8
"""Tokens that are hashed at once for one secret: one is right, the others are guesses that no tag turns away, and more
than that have passed the look for a block before the first is found wrong."""


class ImportVerifier(Verifier):
    """A ``Verifier`` that also knows the tokens of imported keys.

    Attributes:
        forms: which values are looked up.
    """

    def __init__(
        self,
        store: KeyStore,
        hasher: Hasher,
        cache_size: int,
        metrics: Metrics,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        forms: foreign.ImportedForms,
    ) -> None:
        super().__init__(store, hasher, cache_size, metrics, now, monotonic)
        self.forms = forms
        self._adopting: dict[int, asyncio.Task[None]] = {}
        self._tried: dict[int, int] = {}
        """Secret to tokens whose hash for it is under way."""

    async def find_key_id(self, text: str, digest: bytes) -> str | None:
        """The key that a token would belong to. None, remembered for a moment, where no row fits.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        secret = await self._find(text, digest)
        if secret is None:
            self._remember_wrong(digest, "")
        return None if secret is None else secret.key.id

    async def read_imported(self, text: str, digest: bytes, key_id: str, generation: str) -> VerifiedKey | None:
        """Read the key's row and verify the token.

        Args:
            text: what the client sent.
            digest: of it.
            key_id: the key that it is expected to open; of which ``generation`` is.
            generation: given out by the limiter before this call.

        Returns:
            None for a token that no row fits, or a wrong one.

        Raises:
            StoreUnavailable: the database cannot answer.
            HasherUnavailable: there is no hashing now, or too many wait for it.
        """
        read_at = self._monotonic()
        secret = await self._find(text, digest)
        if secret is not None and secret.key.id == key_id:
            verified = VerifiedKey(secret.key, secret.key.has_conditions, generation, read_at)
            before = self._verified.get(digest) or self._inactive.get(digest)
            is_known = before is not None and before.key.secret_id == secret.key.secret_id
            if is_known or await self._is_right(text, digest, verified, secret):
                if not foreign.is_adopted(secret.scheme):
                    self._adopt_soon(text, secret)
                return self._remember(digest, verified)
        self._remember_wrong(digest, key_id)
        return None

    async def close(self) -> None:
        """Wait for what is being hashed anew."""
        await asyncio.gather(*self._adopting.values(), return_exceptions=True)

    async def _find(self, text: str, digest: bytes) -> ImportedSecret | None:
        lookups = foreign.candidate_lookups(text)
        try:
            with self._metrics.span("keyauth.read_key"):
                found = await self._store.imports.find(list(lookups))
        except TemporarilyUnavailable:
            self._negative.pop(digest, None)  # what nobody could look up again is not known
            raise
        # One at most is tried: the token itself before its public parts, and the longest of those.
        best = next((lookup for lookup in lookups if lookup in found), None)
        return None if best is None else found[best].with_public(lookups[best])

    async def _is_right(self, text: str, digest: bytes, verified: VerifiedKey, secret: ImportedSecret) -> bool:
        hashed = foreign.hashed_part(text, secret.scheme, secret.public)
        if secret.scheme is None or foreign.is_adopted(secret.scheme):
            return is_same_secret(secret.tag, secret_tag(hashed)) and await self._verify(
                hashed, digest, verified, secret.hash
            )
        if not foreign.is_slow(secret.scheme):
            return foreign.verify(secret.scheme, secret.hash, hashed)
        name = (digest, secret.key.secret_id)
        running = self._running.get(name)
        if running is None:
            if self._tried.get(secret.key.secret_id, 0) >= MAX_TRIED:
                raise self._hasher.too_many("imported keys not used before")
            check = self._hash_foreign(digest, verified, secret, secret.scheme, hashed)
            running = asyncio.create_task(check, name="keyauth-verify")
            self._running[name] = running
            self._tried[secret.key.secret_id] = self._tried.get(secret.key.secret_id, 0) + 1
            running.add_done_callback(lambda _: self._end_try(name))
        return await outcome_of(running)

    async def _hash_foreign(
        self, digest: bytes, verified: VerifiedKey, secret: ImportedSecret, scheme: str, hashed: str
    ) -> bool:
        is_right = await self._hasher.verify_foreign(scheme, secret.hash, hashed, secret.key.owner_id)
        if is_right:
            self._remember(digest, verified)  # before this task ends, as in _hash
        return is_right

    def _end_try(self, name: tuple[bytes, int]) -> None:
        del self._running[name]
        self._tried[name[1]] -= 1
        if not self._tried[name[1]]:
            del self._tried[name[1]]

    def _adopt_soon(self, text: str, secret: ImportedSecret) -> None:
        """Hash the token our way behind the request's back. What fails is tried again when the row is next read."""
        id = secret.key.secret_id
        if id not in self._adopting:
            task = asyncio.create_task(self._adopt(text, secret), name="keyauth-adopt")
            self._adopting[id] = task
            task.add_done_callback(lambda _: self._adopting.pop(id, None))

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


def build_verifier(
    settings: KeyAuthSettings,
    store: KeyStore,
    hasher: Hasher,
    metrics: Metrics,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
) -> Verifier:
    """One that knows imported keys, where there may be any."""
    if not settings.imported_prefixes:
        return Verifier(store, hasher, settings.cache_size, metrics, now, monotonic)
    forms = foreign.ImportedForms(settings.imported_prefixes, settings.key_prefix)
    return ImportVerifier(store, hasher, settings.cache_size, metrics, now, monotonic, forms)
