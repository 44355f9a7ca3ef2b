"""Sessions: the built-in ones, and the hook for those of the application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.domain.text import check_owner_id, check_scope_names
from fastapi_keyauth.domain.tokens import hash_session_token, is_session_token, new_session_token
from fastapi_keyauth.errors import InvalidField, InvalidSession, StoreUnavailable, TemporarilyUnavailable
from fastapi_keyauth.store import SessionStore

logger = logging.getLogger("fastapi_keyauth")

SessionResolver = Callable[[str, HTTPConnection], Awaitable[SessionPrincipal | None]]
"""Takes the Bearer value and the connection. Returns the user, or None if the value is not a valid session."""

MAX_RESOLVED = 8
"""Sessions of running requests that a resolver is asked about concurrently."""
RESOLVED_WITHIN_S = 5.0
"""Seconds that a resolver may take for the session of a running request. Requests that begin wait without a bound."""
MAX_SESSION_TOKEN_LENGTH = 16_384  # a JWT with many claims; longer values are not handed to a parser


class Sessions:
    """The built-in sessions: random tokens, of which only SHA-256 is stored (256 random bits need no slow hash).

    Args:
        store: The stored sessions.
        ttl_s: Default lifetime of a session.
        now: Returns the current time, UTC.
    """

    def __init__(self, store: SessionStore, ttl_s: int, now: Callable[[], datetime]) -> None:
        self._store = store
        self._ttl = timedelta(seconds=ttl_s)
        self._now = now

    async def create(self, user_id: str, scopes: Iterable[str] = ("*",), ttl: timedelta | None = None) -> str:
        """Create a session for a user who has just been authenticated.

        Args:
            user_id: The user, who owns the keys that the session creates.
            scopes: Scopes of the session. ``*`` stands for all but ``keys:*`` and ``admin``.
            ttl: Lifetime. Default: the setting ``session_ttl_s``.

        Returns:
            The session token. Hand it to the client; it is never stored.

        Raises:
            InvalidField: If the user id, a scope or the lifetime is invalid (a ValueError).
            StoreUnavailable: If the database is unavailable.
        """
        names = check_scope_names(scopes)
        check_owner_id(user_id, "user_id")
        now = self._now()
        ttl = self._ttl if ttl is None else ttl
        if ttl <= timedelta(0):
            raise InvalidField("ttl", "must be positive")
        token = new_session_token()
        await self._store.add(hash_session_token(token), user_id, names, now, now + ttl)
        return token

    async def revoke(self, token: str) -> None:
        """End a session immediately. Unknown tokens are ignored.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        await self._store.revoke(self._now(), token_hash=hash_session_token(token))

    async def revoke_all(self, user_id: str) -> None:
        """End every session of a user immediately.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        await self._store.revoke(self._now(), user_id=user_id)

    async def resolve(self, token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        """Return the session of a token, or None; a ``SessionResolver``. A malformed token costs no I/O."""
        if not is_session_token(token):
            return None
        return await self._store.find(hash_session_token(token), self._now())

    async def find_all(self, tokens: Iterable[str]) -> dict[str, SessionPrincipal]:
        """Return the sessions of tokens, without those that are not valid. Added in 0.2.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        by_hash = {hash_session_token(token): token for token in tokens}
        found = await self._store.find_all(list(by_hash), self._now())
        return {by_hash[token_hash]: session for token_hash, session in found.items()}


class SessionGate:
    """Calls the session resolver and checks its result.

    Args:
        resolve: The built-in sessions or the application's own resolver.
        now: Returns the current time, UTC.
        find_all: Returns the valid ones among many tokens together. None: the resolver is called for each.
    """

    def __init__(
        self,
        resolve: SessionResolver,
        now: Callable[[], datetime],
        find_all: Callable[[Iterable[str]], Awaitable[dict[str, SessionPrincipal]]] | None = None,
    ) -> None:
        self._resolve = resolve
        self._now = now
        self._find_all = find_all

    async def authenticate(self, token: str | None, connection: HTTPConnection) -> SessionPrincipal:
        """Return the principal of a session.

        Args:
            token: The session token. None: several different ones were sent.
            connection: The request.

        Raises:
            InvalidSession: If the session is unknown, expired or revoked or has no user, or several were sent.
        """
        if token is None or len(token) > MAX_SESSION_TOKEN_LENGTH:
            raise InvalidSession
        session = await self._resolve(token, connection)
        if session is None:
            raise InvalidSession
        if session.expires_at is not None and session.expires_at <= self._now():
            raise InvalidSession
        try:
            check_owner_id(session.user_id, "user_id")
        except InvalidField:
            # Such as a JWT without "sub"; its session would belong to nobody, or to everybody.
            logger.warning(
                "the session resolver returned no usable user_id", extra={"keyauth_event": "resolver_failed"}
            )
            raise InvalidSession from None
        return session

    async def check_again(
        self, connections: Mapping[str, HTTPConnection]
    ) -> dict[str, SessionPrincipal | InvalidSession | TemporarilyUnavailable]:
        """Check the sessions of running requests again.

        Args:
            connections: Session tokens, each with one of its requests.

        Returns:
            The outcome for each token. ``TemporarilyUnavailable``: nobody knows.
        """
        if self._find_all is None:
            # A few concurrently, so that the resolver's own server does not notice the number of open requests.
            places = asyncio.Semaphore(MAX_RESOLVED)
            outcomes = await asyncio.gather(
                *(self._resolve_again(token, connection, places) for token, connection in connections.items())
            )
            return dict(zip(connections, outcomes, strict=True))
        try:
            found = await self._find_all(connections) if connections else {}
        except TemporarilyUnavailable as error:
            return dict.fromkeys(connections, error)
        return {token: found.get(token) or InvalidSession() for token in connections}

    async def _resolve_again(
        self, token: str, connection: HTTPConnection, places: asyncio.Semaphore
    ) -> SessionPrincipal | InvalidSession | TemporarilyUnavailable:
        async with places:
            try:
                async with asyncio.timeout(RESOLVED_WITHIN_S):
                    return await self.authenticate(token, connection)
            except (InvalidSession, TemporarilyUnavailable) as error:
                return error
            except HTTPException as error:  # how a resolver may refuse a session
                return InvalidSession() if error.status_code in (401, 403) else StoreUnavailable()
            except Exception as error:  # the application's: one that fails or hangs says nothing about the session
                logger.warning(
                    "the session resolver failed for a running request (%s)",
                    type(error).__name__,
                    extra={"keyauth_event": "resolver_failed"},
                )
                return StoreUnavailable()
