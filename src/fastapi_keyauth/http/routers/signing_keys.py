"""The public keys with which a secret scanner signs its reports."""

import asyncio
import base64
import binascii
import json
import logging
import time
import urllib.request
from collections.abc import Awaitable, Callable

from fastapi_keyauth.errors import SetupError, TemporarilyUnavailable

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ModuleNotFoundError:  # the extra `leaks`
    _has_cryptography = False
else:
    _has_cryptography = True

logger = logging.getLogger("fastapi_keyauth")

GITHUB_KEYS_URL = "https://api.github.com/meta/public_keys/secret_scanning"
FETCH_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 262_144
KEEP_S = 3600.0
"""Seconds for which keys are used before they are fetched again."""
FETCH_EVERY_S = 60.0
"""Minimum number of seconds between two fetches: invented key identifiers must not cause a fetch each."""

FindKeys = Callable[[], Awaitable[dict[str, str]]]
"""Returns key identifier to public key (PEM). May raise whatever a fetch raises."""


async def fetch_github_keys() -> dict[str, str]:
    """Fetch GitHub's keys for secret scanning, in a thread.

    Raises:
        OSError: If GitHub does not respond in time.
        ValueError, KeyError, TypeError: If the response has another form.
    """
    return await asyncio.to_thread(_fetch)


def _fetch() -> dict[str, str]:
    request = urllib.request.Request(GITHUB_KEYS_URL, headers={"Accept": "application/json"})
    # The address is a constant with https; nothing that a client sends is opened.
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
        body = answer.read(MAX_ANSWER_BYTES)
    return {str(key["key_identifier"]): str(key["key"]) for key in json.loads(body)["public_keys"]}


class SigningKeys:
    """Caches the public keys of a scanner and verifies signatures (ECDSA on P-256 with SHA-256).

    Args:
        find_keys: Returns the keys.
        monotonic: Seconds that never go back.

    Raises:
        SetupError: If the package ``cryptography`` is not installed.
    """

    def __init__(self, find_keys: FindKeys, monotonic: Callable[[], float] = time.monotonic) -> None:
        if not _has_cryptography:
            raise SetupError("Signatures need the package cryptography: install the extra 'leaks'.")
        self._find_keys = find_keys
        self._monotonic = monotonic
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def is_signed(self, body: bytes, identifier: str, signature: str) -> bool:
        """Return whether ``body`` was signed with the key that has this identifier.

        Args:
            body: The unchanged bytes.
            identifier: Identifier of the key.
            signature: Signature in DER, base64-encoded.

        Raises:
            TemporarilyUnavailable: If no keys are cached and they cannot be fetched now.
        """
        key = await self._find(identifier)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(signature, validate=True), body, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    async def _find(self, identifier: str) -> "ec.EllipticCurvePublicKey | None":
        async with self._lock:  # one fetch for all callers
            now = self._monotonic()
            is_old = now - self._fetched_at > KEEP_S
            if (is_old or identifier not in self._keys) and now - self._tried_at > FETCH_EVERY_S:
                self._tried_at = now
                await self._fetch(now)
            if self._fetched_at == float("-inf"):
                raise TemporarilyUnavailable("the scanner's public keys are not known")
        return self._keys.get(identifier)

    async def _fetch(self, now: float) -> None:
        try:
            found = {name: _read(pem) for name, pem in (await self._find_keys()).items()}
        except Exception as error:  # whatever a fetch raises: the cached keys stay
            logger.warning(
                "public keys for leak reports not fetched: %s",
                type(error).__name__,
                extra={"keyauth_event": "signing_keys_not_fetched", "reason": type(error).__name__},
            )
            return
        self._keys = {name: key for name, key in found.items() if key is not None}
        self._fetched_at = now


def _read(pem: str) -> "ec.EllipticCurvePublicKey | None":
    """Return the key, or None if its type is unknown or cannot sign reports."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None
