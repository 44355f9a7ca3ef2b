"""CORS for routes that take an API key (Fetch standard, section 3.2).

Browsers get access only to those routes, only from origins that are meant to use keys, and never with cookies.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from starlette.responses import Response

from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.http.host_cors import ALLOW_ORIGIN, allows_origin
from fastapi_keyauth.http.preflight import Preflight
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore

logger = logging.getLogger("fastapi_keyauth")

RawHeaders = list[tuple[bytes, bytes]]

CACHE_S = 3.0
"""Seconds for which the origins of all active keys are cached; a change takes effect within 5 s."""
WAIT_S = 0.5
"""Seconds that responses wait for the origins to be read. After that, the previous ones apply."""

PREFLIGHT_MAX_AGE_S = 5
"""Seconds for which a browser may cache a preflight (also its default)."""

_VARY = (b"vary", b"Origin")
_EXPOSE_HEADERS = b"access-control-expose-headers"
_REPLACED = (ALLOW_ORIGIN, b"access-control-allow-credentials", _EXPOSE_HEADERS)
_EXPOSED = {
    "ietf": ("RateLimit", "RateLimit-Policy"),
    "legacy": ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    "none": (),
}


class CorsRules:
    """The origins that may use API keys: those of the setting and, from the store, those in keys' lists."""

    def __init__(
        self,
        settings: KeyAuthSettings,
        store: KeyStore,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._any = "*" in settings.allowed_origins
        self._allowed = frozenset(settings.allowed_origins)
        names = (settings.header_name, "authorization") if settings.accept_bearer_keys else (settings.header_name,)
        self._key_headers = frozenset(name.encode() for name in names)
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._of_keys: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._reading: SingleFlight[None, None] = SingleFlight("keyauth-origins")
        self._wait_until = 0.0
        mode = settings.rate_limit_headers
        exposed: Iterable[str] = _EXPOSED["ietf"] + _EXPOSED["legacy"] if mode == "both" else _EXPOSED[mode]
        self._exposed = ", ".join((*exposed, "Retry-After")).encode()

    async def answer_preflight(self, preflight: Preflight) -> Response | None:
        """Return the response to a preflight, or None if it is the application's to answer.

        Only a preflight that announces a key is ours, and only from an origin that may use keys.
        """
        if not preflight.announces(self._key_headers) or not await self._is_known(preflight.origin):
            return None
        response = Response(status_code=204)
        response.raw_headers += (
            (ALLOW_ORIGIN, preflight.origin.encode("latin-1")),
            (b"access-control-allow-methods", preflight.method),
            (b"access-control-allow-headers", preflight.headers or b""),
            (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
            (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        )
        return response

    async def add_headers(self, headers: RawHeaders, origin: str, key: KeySnapshot | None) -> RawHeaders:
        """Return the headers of a response of a route that takes a key, readable by an origin that may use keys.

        Headers of the application's own CORS rules stay unchanged. Ours never allow credentials: any owner may list any
        origin, which must not read what other users' cookies give access to.

        Args:
            headers: Headers of the application's response.
            origin: The request's ``Origin``.
            key: The key that was identified, if any.
        """
        if allows_origin(headers, origin):
            return headers
        if key is None:
            is_allowed = await self._is_known(origin)
        else:
            is_allowed = self._any or origin in self._allowed or origin in key.allowed_origins
        if not is_allowed:
            return headers
        exposed = [value for name, value in headers if name.lower() == _EXPOSE_HEADERS]
        kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
        add_vary(kept)
        kept.append((ALLOW_ORIGIN, origin.encode("latin-1")))
        kept.append((_EXPOSE_HEADERS, b", ".join((*exposed, self._exposed))))
        return kept

    async def _is_known(self, origin: str) -> bool:
        """Return whether the setting or any active key allows the origin.

        The origins of all keys are read together, at most every ``CACHE_S``, so a flood of made-up origins costs the
        database only that. While the database is unavailable, the previous ones apply.
        """
        if self._any or origin in self._allowed:
            return True
        if self._read_at is None or self._monotonic() - self._read_at >= CACHE_S:
            if not self._reading.is_running(None):
                self._wait_until = time.monotonic() + WAIT_S
            reading = self._reading.start(None, self._read)
            # No response waits long for a database that hangs; asyncio.wait leaves the task alone.
            await asyncio.wait([reading], timeout=max(0.0, self._wait_until - time.monotonic()))
            if reading.done():
                reading.result()  # raises what is not an outage, such as that KeyAuth is not started
        return origin in self._of_keys

    async def _read(self) -> None:
        began = self._monotonic()
        try:
            self._of_keys = await self._store.origins_of_active_keys(self._now())
        except StoreUnavailable:
            logger.warning(
                "origins of keys not read, keeping the previous ones: the database is unavailable",
                extra={"keyauth_event": "origins_not_read"},
            )
        self._read_at = began


def add_vary(headers: RawHeaders) -> None:
    """Add ``Vary: Origin`` to a response that does not have it yet."""
    for present, value in headers:
        if present == b"vary" and (value == b"*" or b"origin" in value.lower().replace(b" ", b"").split(b",")):
            return
    headers.append(_VARY)
