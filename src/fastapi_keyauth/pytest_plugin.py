"""Fixtures for the tests of an application; turn them on by ``pytest_plugins = ["fastapi_keyauth.pytest_plugin"]``.

| fixture | gives |
| --- | --- |
| ``keyauth_clock`` | the clock of ``keyauth``; move it to let keys expire, blocks end, hours turn |
| ``keyauth`` | a KeyAuth with a database in memory, and hashing that costs nothing |
| ``keyauth_app`` | an application with that KeyAuth: override it with yours |
| ``api_key`` | a key, ``.token`` and ``.key``; ``@pytest.mark.api_key(scopes=[...])`` says how it is made |
| ``keyauth_client`` | a ``TestClient`` of the application, started, that sends the key's token |
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_keyauth.domain.keys import CreatedKey
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.testing import FrozenClock, cheap_settings

MARKER = "api_key(**fields): how the key of the fixture api_key is made; arguments of auth.keys.create"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def keyauth_clock() -> FrozenClock:
    """A clock that stands until the test moves it."""
    return FrozenClock()


@pytest.fixture
def keyauth(keyauth_clock: FrozenClock) -> KeyAuth:
    """A KeyAuth of the test's own. Override it where the application brings one."""
    return KeyAuth(cheap_settings(), clock=keyauth_clock)


@pytest.fixture
def keyauth_app(keyauth: KeyAuth) -> FastAPI:
    """An application that has the management routes alone. Override it with yours."""
    app = FastAPI()
    keyauth.install(app)
    app.include_router(keyauth.keys_router, prefix="/api-keys")
    return app


@pytest.fixture
def _keyauth_started(keyauth: KeyAuth, keyauth_app: FastAPI) -> Iterator[TestClient]:
    if not keyauth.is_installed_on(keyauth_app):
        raise pytest.UsageError(
            "The fixture keyauth_app gives an app that another KeyAuth is installed on: "
            "override the fixture keyauth, too, or make the app with it."
        )
    with TestClient(keyauth_app) as client:
        yield client


@pytest.fixture
def api_key(request: pytest.FixtureRequest, keyauth: KeyAuth, _keyauth_started: TestClient) -> CreatedKey:
    """A key in the started application."""
    marker = request.node.get_closest_marker("api_key")
    fields: dict[str, Any] = {"owner_id": "test-owner", "name": "test key", **(marker.kwargs if marker else {})}
    if _keyauth_started.portal is None:
        raise RuntimeError("the application is not started")
    return _keyauth_started.portal.call(partial(keyauth.keys.create, **fields))


@pytest.fixture
def keyauth_client(keyauth: KeyAuth, api_key: CreatedKey, _keyauth_started: TestClient) -> TestClient:
    """A client that sends the token of ``api_key`` with every request."""
    _keyauth_started.headers[keyauth.settings.header_name] = api_key.token
    return _keyauth_started
