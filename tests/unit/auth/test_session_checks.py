"""The checks of sessions: one call of the resolver for each request, and the key beside the session."""

from datetime import UTC, datetime

import pytest
from starlette.requests import HTTPConnection

from fastapi_keyauth import InvalidSession, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.session_checks import authenticate_session
from fastapi_keyauth.auth.sessions import SessionGate

CONNECTION = HTTPConnection({"type": "http", "headers": []})
KEY = KeyPrincipal("key1", "n", "ada", "live", frozenset(), {}, None, None, None, None)


class Lab:
    """A request with a session token, and a resolver that records the tokens for which it was called."""

    def __init__(self, session: SessionPrincipal | None) -> None:
        self.session = session
        self.resolved: list[str] = []
        credentials = Credentials()
        credentials.session = "ks_token"
        self.context = AuthContext(credentials, None, None)
        self._gate = SessionGate(self._resolve, lambda: datetime(2027, 1, 1, tzinfo=UTC))

    async def _resolve(self, token: str, _connection: HTTPConnection) -> SessionPrincipal | None:
        self.resolved.append(token)
        return self.session

    async def authenticate(self, key: KeyPrincipal | None = None) -> SessionPrincipal:
        """Check the session of the request."""
        return await authenticate_session(self._gate, self.context, CONNECTION, key)


async def test_a_session_is_resolved_once_for_each_request() -> None:
    lab = Lab(SessionPrincipal("ada", frozenset({"a"})))
    for _ in range(2):
        assert (await lab.authenticate()).user_id == "ada"
    assert lab.resolved == ["ks_token"]


async def test_an_invalid_session_is_resolved_once_for_each_request() -> None:
    lab = Lab(None)
    for _ in range(2):
        with pytest.raises(InvalidSession):
            await lab.authenticate()
    assert lab.resolved == ["ks_token"]


async def test_session_of_a_route_that_requires_both_has_the_key() -> None:
    lab = Lab(SessionPrincipal("ada", frozenset()))
    assert (await lab.authenticate()).key is None
    assert (await lab.authenticate(KEY)).key is KEY
    assert (await lab.authenticate()).key is None
