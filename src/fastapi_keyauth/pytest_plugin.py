"""Fixtures for the tests of an application; enable them with ``-p fastapi_keyauth.pytest_plugin``.

A KeyAuth whose database is named neither in code nor by ``KEYAUTH_DATABASE_URL`` keeps its keys in memory then, so that
tests write no ``keyauth.db``.

| fixture | provides |
| --- | --- |
| ``keyauth_clock`` | the clock of ``keyauth``; move it to let keys expire, blocks end, hours pass |
| ``keyauth`` | a KeyAuth with a database in memory and cheap hashing |
| ``keyauth_app`` | an application with that KeyAuth: override it with yours |
| ``keyauth_owner_id`` | the owner of ``api_key``, ``test-owner``: override it with an id of yours. Added in 0.2 |
| ``api_key`` | a key, ``.token`` and ``.key``; ``@pytest.mark.api_key(scopes=[...])`` sets its fields |
| ``keyauth_client`` | a ``TestClient`` of the application, started, that sends the key's token |
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_keyauth.domain.keys import CreatedKey
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.testing import FrozenClock, cheap_settings

MARKER = "api_key(**fields): fields of the key that the fixture api_key creates; arguments of auth.keys.create"
_DATABASE_VARIABLE = "KEYAUTH_DATABASE_URL"
_IN_MEMORY = "sqlite+aiosqlite://"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Set the database before a conftest imports the application."""
    os.environ.setdefault(_DATABASE_VARIABLE, _IN_MEMORY)


def pytest_configure(config: pytest.Config) -> None:
    """Set the database if the plugin is loaded by a conftest, and register the marker."""
    os.environ.setdefault(_DATABASE_VARIABLE, _IN_MEMORY)
    config.addinivalue_line("markers", MARKER)


def pytest_report_header() -> str | None:
    """Say where keys are kept unless the application names its database."""
    in_memory = os.environ.get(_DATABASE_VARIABLE) == _IN_MEMORY
    return f"keyauth: keys in memory ({_DATABASE_VARIABLE}={_IN_MEMORY})" if in_memory else None


@pytest.fixture
def keyauth_clock() -> FrozenClock:
    """A clock that stands still until the test moves it."""
    return FrozenClock()


@pytest.fixture
def keyauth(keyauth_clock: FrozenClock) -> KeyAuth:
    """A new KeyAuth for the test. Override it if the application has one."""
    return KeyAuth(cheap_settings(), clock=keyauth_clock)


@pytest.fixture
def keyauth_app(keyauth: KeyAuth) -> FastAPI:
    """An application with only the management routes. Override it with yours."""
    app = FastAPI()
    keyauth.install(app)
    app.include_router(keyauth.keys_router, prefix="/api-keys")
    return app


@pytest.fixture
def _keyauth_started(keyauth: KeyAuth, keyauth_app: FastAPI) -> Iterator[TestClient]:
    if not keyauth.is_installed_on(keyauth_app):
        raise pytest.UsageError(
            "The fixture keyauth_app returns an app on which another KeyAuth is installed. "
            "Override the fixture keyauth as well, or create the app with it."
        )
    with TestClient(keyauth_app) as client:
        yield client


@pytest.fixture
def keyauth_owner_id() -> str:
    """The owner of ``api_key``. Override it if the application's ids have another form. Added in 0.2."""
    return "test-owner"


@pytest.fixture
def api_key(
    request: pytest.FixtureRequest, keyauth: KeyAuth, keyauth_owner_id: str, _keyauth_started: TestClient
) -> CreatedKey:
    """A key in the started application."""
    marker = request.node.get_closest_marker("api_key")
    fields: dict[str, Any] = {"owner_id": keyauth_owner_id, "name": "test key", **(marker.kwargs if marker else {})}
    if _keyauth_started.portal is None:
        raise RuntimeError("The application is not started.")
    return _keyauth_started.portal.call(partial(keyauth.keys.create, **fields))


@pytest.fixture
def keyauth_client(keyauth: KeyAuth, api_key: CreatedKey, _keyauth_started: TestClient) -> TestClient:
    """A client that sends the token of ``api_key`` with every request."""
    _keyauth_started.headers[keyauth.settings.header_name] = api_key.token
    return _keyauth_started
