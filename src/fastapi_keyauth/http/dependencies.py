# Annotations stay real objects in this module: FastAPI reads them.
"""The FastAPI security dependencies. One object each, which reads the connection itself."""

from collections.abc import Callable

from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.principals import ADMIN, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.errors import InsufficientScope, MissingCredentials
from fastapi_keyauth.http.openapi import EITHER, KEY, KEY_AND_SESSION, OPTIONAL_KEY, SESSION

FindVisit = Callable[[HTTPConnection], AuthContext]


class _Requirement(SecurityBase):
    """What the dependencies share: the authenticator, and a scheme that OpenAPI shows."""

    scheme: str

    def __init__(self, authenticator: Authenticator, get_context: FindVisit, header_name: str) -> None:
        self._authenticator = authenticator
        self._context = get_context
        self.scheme_name = self.scheme
        # openapi.py puts both models in the place of a requirement that concerns both.
        if self.scheme == SESSION:
            self.model = HTTPBearer()
        else:
            self.model = APIKey(**{"in": APIKeyIn.header}, name=header_name)


class RequireKey(_Requirement):
    """Dependency: an API key that is admitted.

    Raises:
        Refusal: no key, a bad one, its cap used up, or a scope of ``Security(..., scopes=[...])`` missing.
        TemporarilyUnavailable: it cannot be checked now.
    """

    scheme = KEY

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> KeyPrincipal:
        """See the class."""
        context = self._context(connection)
        context.takes_key = True
        principal = await self._authenticator.authenticate_key(context)
        if scopes.scopes:
            self._authenticator.check_scopes(scopes.scopes, principal)
        return principal


class OptionalKey(_Requirement):
    """Dependency: an API key that is admitted, or None where no token was sent. A bad one is still refused."""

    scheme = OPTIONAL_KEY

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> KeyPrincipal | None:
        """See the class."""
        context = self._context(connection)
        context.takes_key = True
        if not context.credentials.has_token:
            return None
        principal = await self._authenticator.authenticate_key(context)
        self._authenticator.check_scopes(scopes.scopes, principal)
        return principal


class RequireSession(_Requirement):
    """Dependency: a user's session; an API key is neither wanted nor looked at.

    Raises:
        MissingSession, InvalidSession: 401 with a Bearer challenge.
        InsufficientScope: the session lacks a scope of ``Security(..., scopes=[...])``.
        TemporarilyUnavailable: it cannot be checked now.
    """

    scheme = SESSION

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> SessionPrincipal:
        """See the class."""
        context = self._context(connection)
        context.takes_session = True
        principal = await self._authenticator.authenticate_session(context, connection, None)
        self._authenticator.check_scopes(scopes.scopes, principal)
        return principal


class RequireKeyAndSession(_Requirement):
    """Dependency: an API key and a user's session, both. Scopes must be held by both.

    Raises:
        Refusal: as for a key alone; then ``SessionRequired`` (403) or ``InvalidSession`` (401).
        TemporarilyUnavailable: it cannot be checked now.
    """

    scheme = KEY_AND_SESSION

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> SessionPrincipal:
        """See the class."""
        context = self._context(connection)
        context.takes_key = context.takes_session = True
        key = await self._authenticator.authenticate_key(context)
        principal = await self._authenticator.authenticate_session(context, connection, key)
        # A key without the scope and a session without it answer alike: what is missing is missing.
        self._authenticator.check_scopes(scopes.scopes, key)
        self._authenticator.check_scopes(scopes.scopes, principal)
        return principal


class RequireManager(_Requirement):
    """Dependency of the management routes: a session, or an API key with the scope asked for.

    Where both are sent both are checked, and the session is the caller: it is the person.
    """

    scheme = EITHER

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> KeyPrincipal | SessionPrincipal:
        """See the class."""
        context = self._context(connection)
        context.takes_key = context.takes_session = True
        credentials = context.credentials
        key = await self._authenticator.authenticate_key(context) if credentials.has_token else None
        if credentials.has_session:
            return await self._authenticator.authenticate_session(context, connection, key)
        if key is None:
            raise MissingCredentials
        missing = [scope for scope in scopes.scopes if not key.holds(scope)]
        if missing and not key.holds(ADMIN):
            raise InsufficientScope(missing, key.id)
        return key
