"""Bearer token -> SessionPrincipal: issue, revoke, resolve, and the hook for sessions from elsewhere."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

from starlette.requests import HTTPConnection

from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.domain.text import check_owner_id, check_scope_names
from fastapi_keyauth.domain.tokens import hash_session_token, is_session_token, new_session_token
from fastapi_keyauth.errors import InvalidField, InvalidSession
from fastapi_keyauth.store import SessionStore

logger = logging.getLogger("fastapi_keyauth")

SessionResolver = Callable[[str, HTTPConnection], Awaitable[SessionPrincipal | None]]
"""Given the Bearer value and the connection: the user, or None where the value is no valid session."""

MAX_SESSION_TOKEN_LENGTH = 16_384  # a JWT with many claims; more is an attack on whoever parses it


class Sessions:
    """The built-in sessions: random tokens, of which only SHA-256 is stored (256 random bits need no slow hash).

    Args:
        store: where they are kept.
        ttl_s: seconds a session lasts where ``create`` is not told.
        now: the time, UTC.
    """

    def __init__(self, store: SessionStore, ttl_s: int, now: Callable[[], datetime]) -> None:
        self._store = store
        self._ttl = timedelta(seconds=ttl_s)
        self._now = now

    async def create(self, user_id: str, scopes: Iterable[str] = ("*",), ttl: timedelta | None = None) -> str:
        """Start a session for a user who has just proven who they are.

        Args:
            user_id: the user; owner of the keys that the session makes.
            scopes: what the session may do; ``*`` stands for all but ``keys:*`` and ``admin``.
            ttl: how long it lasts; the setting ``session_ttl_s`` where left out.

        Returns:
            The session token. Hand it to the client; it is stored nowhere.

        Raises:
            InvalidField: a wrong user id, scope or ttl (a ValueError).
            StoreUnavailable: the database cannot answer.
        """
        names = check_scope_names(scopes)
        check_owner_id(user_id, "user_id")
        now = self._now()
        ttl = self._ttl if ttl is None else ttl
        if ttl <= timedelta(0):
            raise InvalidField("ttl", "must be longer than nothing")
        token = new_session_token()
        await self._store.add(hash_session_token(token), user_id, names, now, now + ttl)
        return token

    async def revoke(self, token: str) -> None:
        """End one session, at once. Unknown tokens are ignored.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        await self._store.revoke(self._now(), token_hash=hash_session_token(token))

    async def revoke_all(self, user_id: str) -> None:
        """End every session of a user, at once.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        await self._store.revoke(self._now(), user_id=user_id)

    async def resolve(self, token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        """The session behind a token; a ``SessionResolver``. What has the wrong form costs no I/O."""
        if not is_session_token(token):
            return None
        return await self._store.find(hash_session_token(token), self._now())


class SessionGate:
    """Asks the resolver, and checks what it says.

    Args:
        resolve: the built-in sessions or the application's own resolver.
        now: the time, UTC.
    """

    def __init__(self, resolve: SessionResolver, now: Callable[[], datetime]) -> None:
        self._resolve = resolve
        self._now = now

    async def authenticate(self, token: str | None, connection: HTTPConnection) -> SessionPrincipal:
        """The session's principal.

        Raises:
            InvalidSession: unknown, expired, revoked, without a user, or several were sent (``token`` is None).
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
            # Such as a JWT without "sub": it would be nobody's session, or everybody's.
            logger.warning("the session resolver gave no usable user_id", extra={"keyauth_event": "resolver_failed"})
            raise InvalidSession from None
        return session
