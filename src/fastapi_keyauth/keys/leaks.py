"""Leaked tokens: a report of one revokes its key immediately.

A report is its own proof, since it contains the whole token. A text that is not a token of an existing key, or has
another secret, changes nothing and does not reveal whether such a key exists.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal, Protocol

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.text import is_printable_text
from fastapi_keyauth.domain.tokens import CRC_LENGTH, SECRET_LENGTH, TokenFormError, TokenParser, secret_tag
from fastapi_keyauth.store import KeyStore

logger = logging.getLogger("fastapi_keyauth")

MAX_SOURCE_LENGTH = 64
MAX_URL_LENGTH = 500
LeakOutcome = Literal["revoked", "recorded", "unknown"]
"""``revoked``: the report revoked the key. ``recorded``: the secret is valid, but the report was only recorded, because
the secret was inactive already or ``revoke`` was False. ``unknown``: not a secret of any key."""


class RecordLeak(Protocol):
    """Records a leak in the history of a key, and revokes the key if requested."""

    def __call__(self, id: str, leak: dict[str, Any], actor_name: str, *, revoke: bool) -> Awaitable[None]:
        """Record a leak.

        Raises:
            ChangePending: If not all workers could be notified.
        """


class Leaks:
    """``auth.leaks``: report tokens that were found in public places.

    Args:
        parser: Parses tokens.
        store: Store of the keys.
        hasher: Verifies the secret.
        record: Records the leak.
        now: Returns the current time, UTC.
    """

    def __init__(
        self,
        parser: TokenParser,
        store: KeyStore,
        hasher: Hasher,
        record: RecordLeak,
        now: Callable[[], datetime],
    ) -> None:
        self._parser = parser
        self._store = store
        self._hasher = hasher
        self._record = record
        self._now = now

    async def report(
        self, token: str, source: str = "code", url: str | None = None, *, revoke: bool = True
    ) -> LeakOutcome:
        """Report a token that was leaked.

        Its key is revoked immediately and permanently, unless the secret was inactive already: a secret that a rotation
        replaced says nothing about the current one. The history of the key records the leak in any case (``leaked``).

        Args:
            token: The complete token. It is never stored.
            source: Who found it: 1 to 64 letters, digits, ``-`` and ``_``. The actor is ``leak:<source>``.
            url: Where it was found.
            revoke: False: only record the leak.

        Raises:
            ValueError: If ``source`` has another form.
            ChangePending: If the key is revoked, but not all workers could be notified (Redis is unavailable).
            StoreUnavailable, HasherUnavailable: If the token cannot be checked now.
        """
        if not source.replace("-", "").replace("_", "").isalnum() or len(source) > MAX_SOURCE_LENGTH:
            raise ValueError("source must be a short name of letters, digits, '-' and '_'")
        key = await self._find(token.strip())
        if key is None:
            return "unknown"
        is_alive = key.revoked_at is None and (key.secret_expires_at is None or key.secret_expires_at > self._now())
        leak: dict[str, Any] = {
            "source": source,
            "url": _as_text(redact(url, keep_digests=True)[:MAX_URL_LENGTH]) if url else None,
            "hint": f"{token.strip()[: -SECRET_LENGTH - CRC_LENGTH]}…{token.strip()[-4:]}",
        }
        ends_key = revoke and is_alive
        logger.warning(
            "leaked: a token of key %s was found by %s (revoked now: %s)",
            key.id,
            source,
            "yes" if ends_key else "no",
            extra={"keyauth_event": "leaked", "key_id": key.id, "owner_id": key.owner_id, "reason": source},
        )
        await self._record(key.id, leak, f"leak:{source}", revoke=ends_key)
        return "revoked" if ends_key else "recorded"

    async def _find(self, text: str) -> KeySnapshot | None:
        try:
            token = self._parser.parse(text)
        except TokenFormError:
            return None
        for key, secret_hash in await self._store.find_for_token(token.key_id, secret_tag(token.secret)):
            if key.environment != token.environment:
                continue
            if await self._hasher.verify(secret_hash, token.secret, key.owner_id):
                return key
        return None


def _as_text(url: str) -> str:
    """Replace lone surrogates and control characters: JSON may contain them, but responses of the history cannot."""
    return "".join(character if is_printable_text(character) else "?" for character in url)
