"""Leaked tokens: whoever finds one reports it here, and its key is revoked at once.

A report proves itself: it has to bring the whole token. What is no token of a key of ours, or has another secret,
changes nothing and says nothing about whether such a key exists.
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
"""``revoked``: the key was revoked because of this. ``recorded``: it is a secret of ours, and only written down: it was
dead already, or nothing more was asked. ``unknown``: no secret of ours."""


class RecordLeak(Protocol):
    """Writes a leak into a key's history, and revokes the key where that is wanted."""

    def __call__(self, id: str, leak: dict[str, Any], actor_name: str, *, revoke: bool) -> Awaitable[None]:
        """Raises ``ChangePending`` where the change cannot be told to all workers at once."""


class Leaks:
    """``auth.leaks``: report tokens that were found where they should not be.

    Args:
        parser: of tokens.
        store: has the keys.
        hasher: verifies the secret.
        record: writes it down.
        now: the time, UTC.
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
        """Report a token that somebody found.

        Its key is revoked, for good and at once, unless the secret was dead already: one that a rotation replaced says
        nothing about the secret of today. The history of the key tells of it in any case (``leaked``).

        Args:
            token: the whole of it. It is stored nowhere.
            source: who found it, for the history: ``leak:<source>`` is the actor; letters, digits, ``-`` and ``_``.
            url: where.
            revoke: False: only write it down.

        Raises:
            ValueError: a source of another form.
            ChangePending: the key is revoked, and not all workers could be told yet (Redis out of reach).
            StoreUnavailable, HasherUnavailable: it cannot be looked up now.
        """
        if not source.replace("-", "").replace("_", "").isalnum() or len(source) > MAX_SOURCE_LENGTH:
            raise ValueError("source is a short name of letters, digits, '-' and '_'")
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
    """Halves of characters, which JSON may hold and no answer can, would spoil the key's history."""
    return "".join(character if is_printable_text(character) else "?" for character in url)
