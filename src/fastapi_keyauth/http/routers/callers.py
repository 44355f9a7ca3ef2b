# Annotations stay real objects in this module: FastAPI reads them.
"""Callers of management routes, which are checked again in the transaction of a change."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request, Security
from starlette.requests import HTTPConnection

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.sessions import SessionGate
from fastapi_keyauth.domain.keys import Actor, KeySnapshot
from fastapi_keyauth.domain.limits import LimitRules
from fastapi_keyauth.domain.permissions import Caller
from fastapi_keyauth.domain.principals import ADMIN, KEYS_READ, KEYS_WRITE, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.domain.tokens import hash_session_token
from fastapi_keyauth.errors import InsufficientScope, InvalidSession, RevokedApiKey
from fastapi_keyauth.http.dependencies import RequireManager
from fastapi_keyauth.store.callers import CallerRows

Principal = KeyPrincipal | SessionPrincipal
OwnersOf = Callable[[SessionPrincipal], Awaitable[Mapping[str, Collection[str]]]]
"""Takes a session. Returns the owners that it may act for, each with ``keys:read``, ``keys:write`` or both."""


class Callers:
    """Finds the caller of a management request.

    Args:
        authenticator: Checks keys again.
        sessions: Checks sessions again.
        has_own_sessions: Whether sessions are rows of ours. If not, the application's resolver is called again.
        owners_of: Returns the owners of a session. None: a session acts for its own user id.
        get_context: Returns the context of a request.
        default_limit: The setting ``default_hourly_limit``.
        rules: Rules that turn the stored limits of a key into its effective limits.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        sessions: SessionGate,
        has_own_sessions: bool,
        owners_of: OwnersOf | None,
        get_context: Callable[[HTTPConnection], AuthContext],
        default_limit: int | None,
        rules: LimitRules,
    ) -> None:
        self.authenticator = authenticator
        self.sessions = sessions
        self.has_own_sessions = has_own_sessions
        self._owners_of = owners_of
        self.get_context = get_context
        self._default_limit = default_limit
        self._rules = rules

    async def find(self, principal: Principal, connection: HTTPConnection) -> "RequestAuthority":
        """Return the authority of a request that was authenticated."""
        context = self.get_context(connection)
        caller = await self.describe(principal, context.key)
        return RequestAuthority(self, connection, context, caller)

    def having(
        self, scope: str, manager: RequireManager
    ) -> Callable[[Principal, Request], Awaitable["RequestAuthority"]]:
        """Return a dependency on the authority of a caller that holds a scope.

        Args:
            scope: The scope that a calling key must hold.
            manager: Authenticates the caller.
        """

        async def find(
            principal: Annotated[Principal, Security(manager, scopes=[scope])], request: Request
        ) -> RequestAuthority:
            return await self.find(principal, request)

        return find

    def admin(self, manager: RequireManager) -> Callable[["RequestAuthority"], Awaitable["RequestAuthority"]]:
        """Return a dependency on the authority of an administrator.

        Args:
            manager: Authenticates the caller.
        """

        async def find_admin(
            by: Annotated[RequestAuthority, Depends(self.having(ADMIN, manager))],
        ) -> RequestAuthority:
            by.caller.check_admin()
            return by

        return find_admin

    async def describe(self, principal: Principal, key: KeySnapshot | None) -> Caller:
        """Return the caller that a principal is, as the application sees it now."""
        if isinstance(principal, SessionPrincipal):
            owners = None if self._owners_of is None else await self._owners_of(principal)
            return Caller.of_session(principal, self._default_limit, owners, self._rules)
        if key is None:
            raise RuntimeError("a key was admitted without a row")
        return Caller.of_key(principal, key, self._default_limit, self._rules)


class RequestAuthority:
    """The authority of a management request: its key, its session, or both.

    Attributes:
        caller: The caller, as last checked.
    """

    def __init__(self, callers: Callers, connection: HTTPConnection, context: AuthContext, caller: Caller) -> None:
        self._callers = callers
        self._connection = connection
        self._context = context
        self._key = context.key
        self.caller = caller

    @property
    def key_id(self) -> str | None:
        """The key whose row ``confirm`` locks. None: no key was sent."""
        return None if self._key is None else self._key.id

    @property
    def turn(self) -> str:
        """The owner or user in whose name the change waits for its turn."""
        principal = self.caller.principal
        return principal.owner_id if isinstance(principal, KeyPrincipal) else principal.user_id

    @property
    def owner_ids(self) -> Collection[str] | None:
        """The owners whose keys the caller may see. None: all."""
        return self.caller.visible_owner_ids

    @property
    def readable_owner_ids(self) -> Collection[str] | None:
        """The owners whose keys the caller may read. None: all."""
        return self.caller.find_owners(KEYS_READ)

    @property
    def writes_unread_owners(self) -> bool:
        """Whether the caller has ``keys:write`` without ``keys:read`` for an owner."""
        readable = self.readable_owner_ids
        return readable is not None and len(readable) < len(self.caller.owners)

    @property
    def changeable_owner_ids(self) -> Collection[str] | None:
        """The owners whose keys the caller may change. None: all."""
        return self.caller.find_owners(KEYS_WRITE)

    def actor(self, reason: str | None = None) -> Actor:
        """Return the caller, for the history."""
        address = self._context.address
        return self.caller.actor(None if address is None else address.text, reason)

    async def renew(self) -> None:
        """Call the application's session resolver and ``owners_of`` again.

        Raises:
            InvalidSession: If the session has ended.
        """
        principal = self.caller.principal
        if isinstance(principal, KeyPrincipal):
            return
        if not self._callers.has_own_sessions:
            principal = await self._callers.sessions.authenticate(self._context.credentials.session, self._connection)
        self.caller = await self._callers.describe(principal, self._key)

    async def confirm(self, rows: CallerRows) -> None:
        """Check key and session again by their rows, which stay locked until the transaction ends.

        Raises:
            Refusal: If one of them was revoked, disabled or suspended, has expired, or lost a scope.
        """
        if self._key is not None:
            await self._confirm_key(rows, self._key)
        principal = self.caller.principal
        if isinstance(principal, SessionPrincipal) and self._callers.has_own_sessions:
            session = await rows.find_session(hash_session_token(self._context.credentials.session or ""))
            if session is None:
                raise InvalidSession
            self.caller = replace(self.caller, principal=session, is_admin=ADMIN in session.scopes)

    async def _confirm_key(self, rows: CallerRows, admitted: KeySnapshot) -> None:
        key = await rows.find_key(admitted.id, admitted.secret_id)
        if key is None:
            raise RevokedApiKey(admitted.id)
        fault = self._callers.authenticator.find_fault(key, self._context)
        if fault is not None:
            raise fault
        principal = self.caller.principal
        if isinstance(principal, SessionPrincipal):
            return
        principal = replace(
            principal,
            scopes=key.scopes,
            hourly_limit=key.hourly_limit,
            expires_at=key.expires_at,
            _limits=key.limits,
        )
        if not (principal.holds(KEYS_WRITE) or principal.holds(ADMIN)):
            raise InsufficientScope([KEYS_WRITE], key.id)
        self.caller = await self._callers.describe(principal, key)
