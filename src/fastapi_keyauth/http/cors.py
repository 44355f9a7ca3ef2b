"""Cross-origin rules: preflights without a key, and the headers of every response (Fetch standard, section 3.3)."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore

logger = logging.getLogger("fastapi_keyauth")

RawHeaders = list[tuple[bytes, bytes]]

REMEMBER_S = 3.0
"""Seconds for which the origins of all active keys are remembered; a change shows within 5 s."""
WAIT_S = 0.5
"""Seconds that responses wait for a reading; then those that were read last count."""

PREFLIGHT_MAX_AGE_S = 5
"""Seconds for which a browser may remember a preflight (also its default)."""

_VARY = (b"vary", b"Origin")
_EXPOSED = {
    "ietf": ("RateLimit", "RateLimit-Policy"),
    "legacy": ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    "none": (),
}


class CorsRules:
    """Which origins are echoed. Knows the setting and, from the store, the lists of all active keys."""

    def __init__(
        self,
        settings: KeyAuthSettings,
        store: KeyStore,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._any = "*" in settings.allowed_origins
        self._allowed = frozenset(settings.allowed_origins)
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._of_keys: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._wait_until = 0.0
        mode = settings.rate_limit_headers
        names: Iterable[str] = _EXPOSED["ietf"] + _EXPOSED["legacy"] if mode == "both" else _EXPOSED[mode]
        self._exposed = ", ".join((*names, "Retry-After")).encode()

    async def preflight_headers(self, origin: str, method: bytes, headers: bytes | None) -> RawHeaders | None:
        """Headers of the answer to a preflight, or None where the origin is not allowed."""
        if not await self._is_known(origin):
            return None
        answer = [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", method),
            (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
        ]
        if headers is not None:
            answer.append((b"access-control-allow-headers", headers))
        return answer

    async def add_headers(self, headers: RawHeaders, context: AuthContext) -> None:
        """Complete the headers of a response to a request with ``Origin``. What the application set itself stays."""
        if context.origin is None or any(name == b"access-control-allow-origin" for name, _ in headers):
            return
        if context.key is None:
            allowed = await self._is_known(context.origin)
        else:
            allowed = self._any or context.origin in self._allowed or context.origin in context.key.allowed_origins
        if allowed:
            headers.append((b"access-control-allow-origin", context.origin.encode("latin-1")))
            headers.append((b"access-control-expose-headers", self._exposed))

    async def _is_known(self, origin: str) -> bool:
        """Whether the setting or any active key allows the origin.

        All keys' origins are read at once, every ``REMEMBER_S`` at most: what a flood of made-up origins costs the
        database is that one reading. Where the database is away, what was read last stays.
        """
        if self._any or origin in self._allowed:
            return True
        if self._read_at is None or self._monotonic() - self._read_at >= REMEMBER_S:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(), name="keyauth-origins")
                self._wait_until = time.monotonic() + WAIT_S
            # No response waits long for a database that hangs; asyncio.wait leaves the reading alone.
            await asyncio.wait([self._reading], timeout=max(0.0, self._wait_until - time.monotonic()))
        return origin in self._of_keys

    async def _read(self) -> None:
        began = self._monotonic()
        try:
            self._of_keys = await self._store.origins_of_active_keys(self._now())
        except StoreUnavailable:
            logger.warning(
                "origins of keys not read, the last ones stay: the database is unavailable",
                extra={"keyauth_event": "origins_not_read"},
            )
        finally:
            self._read_at = began
            self._reading = None


def add_vary(headers: RawHeaders) -> None:
    """Say that the response depends on ``Origin``, where it does not say so yet."""
    for present, value in headers:
        if present == b"vary" and (value == b"*" or b"origin" in value.lower().replace(b" ", b"").split(b",")):
            return
    headers.append(_VARY)
