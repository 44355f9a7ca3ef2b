# No postponed annotations in this module: FastAPI reads them at runtime.
"""FastAPI security dependencies. Each one is an object that reads the connection itself."""

from collections.abc import Iterable
from typing import Generic, Self, TypeVar

from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.types import Scope
from typing_extensions import override

from fastapi_keyauth.auth.request_context import NO_TERMS, AuthContext, Terms
from fastapi_keyauth.auth.session_checks import authenticate_session, check_scopes
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost
from fastapi_keyauth.domain.principals import ADMIN, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.errors import InsufficientScope, KeyAuthError, MissingCredentials
from fastapi_keyauth.http.openapi import EITHER, KEY, KEY_AND_SESSION, MANAGER, OPTIONAL_KEY, SESSION, internal_name
from fastapi_keyauth.http.request_handler import RequestHandler

Principal = TypeVar("Principal")


class _Requirement(SecurityBase, Generic[Principal]):
    """A dependency on the credentials of a request, with the scheme that OpenAPI shows.

    Attributes:
        handler: Request handler of its ``KeyAuth``.
        takes_key: Whether the route accepts an API key.
        requires_key: Whether it accepts no request without one.
        takes_session: Whether the route accepts a session.
    """

    scheme: str
    takes_key = True
    requires_key = True
    takes_session = False

    def __init__(
        self, handler: RequestHandler, header_name: str, scopes: Iterable[str] = (), cost: Cost = ONE_REQUEST
    ) -> None:
        self.required_scopes = tuple(scopes)
        self.cost = cost
        self._costs_one = cost == ONE_REQUEST
        handler.costs.has_any |= cost not in (ONE_REQUEST, ())
        self.handler = handler
        self._header_name = header_name
        self._authenticator = handler.authenticator
        # openapi.py replaces the name, with both schemes if the dependency concerns both.
        self.scheme_name = internal_name(self.scheme, header_name, self.required_scopes)
        if self.scheme == SESSION:
            self.model = HTTPBearer()
        else:
            self.model = APIKey(**{"in": APIKeyIn.header}, name=header_name)

    def at_cost(self, cost: Cost) -> Self:
        """Return the same requirement with another cost."""
        return type(self)(self.handler, self._header_name, self.required_scopes, cost)

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> Principal:
        """Authenticate the request.

        Returns:
            The principal.

        Raises:
            Refusal: If the request is refused.
            TemporarilyUnavailable: If the store or the limiter is unavailable.
        """
        handler = self.handler
        context = handler.get_context(connection)
        if self.takes_key:
            context.takes_key = True
        if self.takes_session:
            context.takes_session = True
        required = self.required_scopes
        if scopes.scopes:
            required = (*required, *scopes.scopes)
        if required:
            self._note_terms(context, required)
        key: KeyPrincipal | None = None
        try:
            if self.takes_key and (self.requires_key or context.credentials.has_token):
                if handler.costs.has_any or not self._costs_one:
                    await self._raise_cost(context, connection.scope)
                outcome = self._authenticator.start(context)
                key = outcome if isinstance(outcome, KeyPrincipal) else await outcome
            if self.takes_session:
                return await self._with_session(context, connection, key, required)
            if required and key is not None:
                check_scopes(required, key)
        except KeyAuthError as error:
            handler.bind(error, context, connection.scope)
            raise
        return key  # type: ignore[return-value]  # what the subclass says: None only if it does not require a key

    def _note_terms(self, context: AuthContext, scopes: tuple[str, ...]) -> None:
        """Note what the credentials must hold for as long as the request runs."""
        terms = context.terms or NO_TERMS
        context.terms = terms._replace(
            key_scopes=terms.key_scopes + scopes if self.takes_key else terms.key_scopes,
            session_scopes=terms.session_scopes + scopes if self.takes_session else terms.session_scopes,
        )

    async def _raise_cost(self, context: AuthContext, scope: Scope) -> None:
        if context.credentials.has_token:
            before = context.key_outcome
            await self._authenticator.raise_cost(context, self.handler.costs.find(scope, self.cost))
            state = scope.get("state")
            if context.key_outcome is not before and state is not None and state.get("key") is before:
                state["key"] = context.key_outcome  # that of ``auth.protect``, with what is left now

    async def _with_session(
        self, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None, scopes: tuple[str, ...]
    ) -> Principal:
        """Return the principal of a route that accepts sessions. The key was admitted; None: it has none."""
        raise NotImplementedError


class RequireKey(_Requirement[KeyPrincipal]):
    """Dependency on an API key. Returns a ``KeyPrincipal``.

    Raises:
        Refusal: If the key is missing or refused, its limit is used up, or it lacks a scope of
            ``Security(..., scopes=[...])``.
        TemporarilyUnavailable: If the store or the limiter is unavailable.
    """

    scheme = KEY


class OptionalKey(_Requirement[KeyPrincipal | None]):
    """Dependency on an API key, if one was sent. Returns a ``KeyPrincipal``, or None if no token was sent.

    Raises:
        Refusal: As for ``RequireKey``, if a token was sent.
        TemporarilyUnavailable: If the store or the limiter is unavailable.
    """

    scheme = OPTIONAL_KEY
    requires_key = False


class RequireSession(_Requirement[SessionPrincipal]):
    """Dependency on a user's session. Returns a ``SessionPrincipal``. An API key is neither required nor read.

    Raises:
        MissingSession: If no session was sent.
        InvalidSession: If the session is unknown, expired or revoked.
        InsufficientScope: If the session lacks a scope of ``Security(..., scopes=[...])``.
        TemporarilyUnavailable: If the store is unavailable.
    """

    scheme = SESSION
    takes_key = False
    requires_key = False
    takes_session = True

    @override
    async def _with_session(
        self, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None, scopes: tuple[str, ...]
    ) -> SessionPrincipal:
        principal = await authenticate_session(self._authenticator.sessions, context, connection, None)
        check_scopes(scopes, principal)
        return principal


class RequireKeyAndSession(_Requirement[SessionPrincipal]):
    """Dependency on an API key and a user's session. Returns a ``SessionPrincipal`` with its ``key``.

    Both must hold the scopes.

    Raises:
        Refusal: As for ``RequireKey``; then ``SessionRequired`` (403) or ``InvalidSession`` (401).
        TemporarilyUnavailable: If the store or the limiter is unavailable.
    """

    scheme = KEY_AND_SESSION
    takes_session = True

    @override
    async def _with_session(
        self, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None, scopes: tuple[str, ...]
    ) -> SessionPrincipal:
        principal = await authenticate_session(self._authenticator.sessions, context, connection, key)
        # The response is the same whether the key or the session lacks the scope.
        if key is not None:
            check_scopes(scopes, key)
        check_scopes(scopes, principal)
        return principal


class RequireKeyOrSession(_Requirement[KeyPrincipal | SessionPrincipal]):
    """Dependency on an API key or a user's session. Returns a ``KeyPrincipal`` or a ``SessionPrincipal``.

    A key, if one was sent, decides; otherwise the session does. The scopes apply to the one that decides, the limits
    to keys. Added in 0.2.

    Raises:
        MissingCredentials: If neither was sent.
        Refusal: As for ``RequireKey`` if a key was sent, otherwise as for ``RequireSession``.
        TemporarilyUnavailable: If the store or the limiter is unavailable.
    """

    scheme = EITHER
    requires_key = False
    takes_session = True

    @override
    async def _with_session(
        self, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None, scopes: tuple[str, ...]
    ) -> KeyPrincipal | SessionPrincipal:
        principal: KeyPrincipal | SessionPrincipal
        if key is not None:
            principal = key
        elif context.credentials.has_session:
            principal = await authenticate_session(self._authenticator.sessions, context, connection, None)
        else:
            raise MissingCredentials
        check_scopes(scopes, principal)
        return principal


class RequireManager(_Requirement[KeyPrincipal | SessionPrincipal]):
    """Dependency of the management routes: a session, or an API key with the scope of the route.

    If both were sent, both are checked and the session is the caller, since it identifies the person.
    """

    scheme = MANAGER
    requires_key = False
    takes_session = True

    @override
    async def _with_session(
        self, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None, scopes: tuple[str, ...]
    ) -> KeyPrincipal | SessionPrincipal:
        if connection.scope.get("method") not in ("GET", "HEAD"):
            context.terms = Terms(outlives_rights=True)
        if context.credentials.has_session:
            return await authenticate_session(self._authenticator.sessions, context, connection, key)
        if key is None:
            raise MissingCredentials
        missing = [scope for scope in scopes if not key.holds(scope)]
        if missing and not key.holds(ADMIN):
            raise InsufficientScope(missing, key.id)
        return key

    @override
    def _note_terms(self, context: AuthContext, scopes: tuple[str, ...]) -> None:
        pass  # the scope of the route is one of several ways to hold the right
