"""Argon2 for one secret, or the ticket that replaces it, once for all requests that wait for the same result."""

from functools import partial

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.key_cache import KeyCache, VerifiedKey
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.concurrency.single_flight import SingleFlight


class SecretCheck:
    """Verifies secrets by this package's own hashes, and caches the keys of correct ones.

    Args:
        hasher: Compares secrets.
        key_cache: Cache of verified keys.
        tickets: Verification tickets. None: Argon2 verifies every secret that is new to this process.
    """

    def __init__(self, hasher: Hasher, key_cache: KeyCache, tickets: Tickets | None = None) -> None:
        self._hasher = hasher
        self._tickets = tickets
        self._key_cache = key_cache
        self._hashes: SingleFlight[tuple[bytes, int], bool] = SingleFlight("keyauth-verify")

    async def verify(self, secret: str, digest: bytes, verified: VerifiedKey, secret_hash: str) -> bool:
        """Return whether a secret is the one that was hashed.

        Args:
            secret: The secret.
            digest: Digest of the whole token.
            verified: The key as it is cached if the secret is right.
            secret_hash: A PHC string.

        Raises:
            HasherUnavailable: If Argon2 cannot run, or too many wait for it.
        """
        name = (digest, verified.key.secret_id)
        return await self._hashes.run(name, partial(self._hash, secret, digest, verified, secret_hash))

    async def _hash(self, secret: str, digest: bytes, verified: VerifiedKey, secret_hash: str) -> bool:
        key = verified.key
        if self._tickets is not None and await self._tickets.is_proven(key, secret, secret_hash):
            self._key_cache.add(digest, verified)
            return True
        verify = self._hasher.verify_inactive if self._key_cache.is_inactive(key) else self._hasher.verify
        is_right = await verify(secret_hash, secret, key.owner_id)
        if is_right:
            # Before this task ends: the next request finds the task or its result, never neither.
            self._key_cache.add(digest, verified)
            if self._tickets is not None:
                self._tickets.issue_soon(key, secret, secret_hash)
        return is_right
