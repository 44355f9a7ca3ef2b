"""Checks 8 to 10 of ``authenticator.py``: the session, and the scopes of key and session."""

from collections.abc import Iterable
from dataclasses import replace

from starlette.requests import HTTPConnection

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.sessions import SessionGate
from fastapi_keyauth.domain.principals import KeyPrincipal, SessionPrincipal
from fastapi_keyauth.errors import InsufficientScope, KeyAuthError, MissingSession, SessionRequired


async def authenticate_session(
    sessions: SessionGate, context: AuthContext, connection: HTTPConnection, key: KeyPrincipal | None
) -> SessionPrincipal:
    """Run checks 8 and 9.

    Args:
        sessions: Finds sessions.
        context: The request.
        connection: The request, for the session resolver.
        key: The key that was admitted, if the route requires both.

    Raises:
        SessionRequired: If no session was sent, on a route that requires both.
        MissingSession: If no session was sent, on a route that requires a session alone.
        InvalidSession: If the session is not valid.
        TemporarilyUnavailable: If the store is unavailable.
    """
    if not context.credentials.has_session:
        raise MissingSession if key is None else SessionRequired
    outcome = context.session_outcome
    if outcome is None:
        try:
            outcome = await sessions.authenticate(context.credentials.session, connection)
        except KeyAuthError as error:
            outcome = error
        context.session_outcome = outcome
    if isinstance(outcome, KeyAuthError):
        raise outcome
    return outcome if key is None else replace(outcome, key=key)


def check_scopes(scopes: Iterable[str], principal: KeyPrincipal | SessionPrincipal) -> None:
    """Run check 10.

    Raises:
        InsufficientScope: If scopes are missing. It names them.
    """
    missing = {scope for scope in scopes if not principal.holds(scope)}
    if missing:
        raise InsufficientScope(missing, key_id=principal.id if isinstance(principal, KeyPrincipal) else None)
