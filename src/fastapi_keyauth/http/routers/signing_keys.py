"""The public keys that a secret scanner signs its reports with."""

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
"""Seconds for which keys are believed without asking again."""
FETCH_EVERY_S = 60.0
"""Seconds between two fetches at least: whoever makes key identifiers up must not make us ask each time."""

FindKeys = Callable[[], Awaitable[dict[str, str]]]
"""Gives key identifier -> public key (PEM). May raise whatever a fetch raises."""


async def fetch_github_keys() -> dict[str, str]:
    """GitHub's keys for secret scanning, fetched in a thread.

    Raises:
        OSError: GitHub does not answer, or not in time.
        ValueError, KeyError, TypeError: it answers something else.
    """
    return await asyncio.to_thread(_fetch)


def _fetch() -> dict[str, str]:
    request = urllib.request.Request(GITHUB_KEYS_URL, headers={"Accept": "application/json"})
    # The address is a constant with https; nothing that anybody sends is opened.
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
        body = answer.read(MAX_ANSWER_BYTES)
    return {str(key["key_identifier"]): str(key["key"]) for key in json.loads(body)["public_keys"]}


class SigningKeys:
    """Remembers a scanner's public keys, and checks signatures by them (ECDSA on P-256 with SHA-256).

    Args:
        find_keys: gives the keys.
        monotonic: seconds that only grow.

    Raises:
        SetupError: the package ``cryptography`` is not installed.
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
        """Whether ``body`` was signed with the key of that name.

        Args:
            body: as it came, byte for byte.
            identifier: of the key.
            signature: DER in base64.

        Raises:
            TemporarilyUnavailable: the keys are not known, and cannot be fetched now.
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
        async with self._lock:  # one fetch for all that wait
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
        except Exception as error:  # whatever a fetch raises: the keys of before stay
            logger.warning(
                "public keys for leak reports not fetched: %s",
                type(error).__name__,
                extra={"keyauth_event": "signing_keys_not_fetched", "reason": type(error).__name__},
            )
            return
        self._keys = {name: key for name, key in found.items() if key is not None}
        self._fetched_at = now


def _read(pem: str) -> "ec.EllipticCurvePublicKey | None":
    """The key; None where it is of a kind that signs nothing here, or that is not known."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None
