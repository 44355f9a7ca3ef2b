"""From a token to a verified key: its key id, the tag, the hash, and the cache."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from typing_extensions import override

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.imported_verifier import ImportedVerifier
from fastapi_keyauth.auth.key_cache import KeyCache, VerifiedKey
from fastapi_keyauth.auth.secret_check import SecretCheck
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.domain.imported_tokens import ImportedForms
from fastapi_keyauth.domain.tokens import ParsedToken, TokenFormError, TokenParser, secret_tag
from fastapi_keyauth.errors import TemporarilyUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.telemetry.counters import Metrics


class Location(NamedTuple):
    """The key that a text names, as far as its form shows.

    Attributes:
        text: The text that the client sent.
        digest: Digest of the text.
        token: The parts of a token of our form. None for a token of an imported key, which requires a lookup.
    """

    text: str
    digest: bytes
    token: ParsedToken | None

    @property
    def key_id(self) -> str | None:
        """The key's id, if the text contains it."""
        return None if self.token is None else self.token.key_id

    @override
    def __repr__(self) -> str:
        return f"Location(key_id={self.key_id!r})"  # the text is a secret


class Verifier:
    """Verifies tokens, of our form and of imported keys, and caches the result.

    Args:
        parser: Parses tokens of our form.
        store: Reads the rows.
        hasher: Compares secrets.
        key_cache: Cache of verified keys and invalid tokens.
        metrics: Records spans around reads.
        monotonic: Returns seconds of a monotonic clock.
        imported: Verifies tokens of imported keys. None if the settings accept none.
        tickets: Verification tickets. None: Argon2 verifies every secret that is new to this process.

    Attributes:
        monotonic: The clock of ``VerifiedKey.read_at``.
    """

    def __init__(
        self,
        parser: TokenParser,
        store: KeyStore,
        hasher: Hasher,
        key_cache: KeyCache,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
        imported: ImportedVerifier | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        self._parser = parser
        self._store = store
        self._secrets = SecretCheck(hasher, key_cache, tickets)
        self._tickets = tickets
        self.key_cache = key_cache
        self._metrics = metrics
        self.monotonic = monotonic
        self.imported = imported
        self._reads: SingleFlight[tuple[bytes, str, float], VerifiedKey | None] = SingleFlight(
            "keyauth-read", monotonic
        )
        # The hot path: no call of ours around them.
        self.find_verified = key_cache.find
        self.find_negative = key_cache.find_negative

    @classmethod
    def of(
        cls,
        settings: KeyAuthSettings,
        store: KeyStore,
        hasher: Hasher,
        key_cache: KeyCache,
        metrics: Metrics,
        monotonic: Callable[[], float],
        tickets: Tickets | None = None,
    ) -> "Verifier":
        """Create the verifier for the settings."""
        parser = TokenParser(settings.key_prefix)
        imported = None
        if settings.imported_prefixes:
            forms = ImportedForms(settings.imported_prefixes, settings.key_prefix)
            imported = ImportedVerifier(store, hasher, key_cache, metrics, monotonic, forms, tickets)
        return cls(parser, store, hasher, key_cache, metrics, monotonic, imported, tickets)

    def locate(self, text: str, digest: bytes) -> Location:
        """Find the key that a text names, as far as its form shows. No I/O.

        Raises:
            TokenFormError: If it is neither a well-formed token nor has the form of imported ones.
        """
        try:
            token = self._parser.parse(text)
        except TokenFormError:
            if self.imported is None or not self.imported.forms.takes(text):
                raise
            token = None
        return Location(text, digest, token)

    async def find_key_id(self, location: Location) -> str | None:
        """Return the id of the key that a text names. None, which is cached briefly, if no row matches.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        if self.imported is None or location.token is not None:
            return location.key_id
        return await self.imported.find_key_id(location.text, location.digest)

    async def read(self, location: Location, key_id: str, generation: str, share_s: float = 0.0) -> VerifiedKey | None:
        """Read the key's row and verify the secret. Argon2 only runs for a secret that was not verified before.

        A busy key that was changed, or whose row has grown old, is read once for all requests that wait for it.

        Args:
            location: From ``locate``.
            key_id: Id of the key that the token is expected to belong to.
            generation: Generation of that key, returned by the limiter before this call.
            share_s: Maximum age of a running read under the same generation that may be shared, in seconds.

        Returns:
            None for an unknown id or a wrong secret.

        Raises:
            StoreUnavailable: If the database is unavailable.
            HasherUnavailable: If Argon2 cannot run, or too many wait for it.
        """
        text, digest, token = location
        if token is None:
            return None if self.imported is None else await self.imported.read(text, digest, key_id, generation)
        if not share_s:
            return await self._read(token, digest, generation)
        # Also a task if there is no generation, and so no request to share it: an id that does not exist would
        # otherwise be refused sooner than one that does.
        return await self._reads.run(
            (digest, generation, self.key_cache.distrusted_at),
            partial(self._read, token, digest, generation),
            max_age_s=share_s if generation else 0.0,
        )

    async def close(self) -> None:
        """Wait for background tasks."""
        if self.imported is not None:
            await self.imported.close()
        if self._tickets is not None:
            await self._tickets.close()

    async def _read(self, token: ParsedToken, digest: bytes, generation: str) -> VerifiedKey | None:
        read_at = self.monotonic()
        tag = secret_tag(token.secret)
        try:
            with self._metrics.span("keyauth.read_key", token.key_id):
                found = await self._store.find_for_token(token.key_id, tag)
        except TemporarilyUnavailable:
            self.key_cache.forget_negative(digest)  # without another read, the token may be valid again
            raise
        for key, secret_hash in found:
            if key.environment != token.environment:
                continue  # a token of this key with another environment was never issued
            verified = VerifiedKey(key, key.has_conditions, generation, read_at)
            if self.key_cache.has_verified(digest, key) or await self._secrets.verify(
                token.secret, digest, verified, secret_hash
            ):
                return self.key_cache.add(digest, verified)
        self.key_cache.add_negative(digest, token.key_id)
        return None
