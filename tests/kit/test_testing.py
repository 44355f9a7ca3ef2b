"""`fastapi_keyauth.testing`: promises that the tests of its documentation do not cover."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.testclient import TestClient

from fastapi_keyauth import KeyAuth, KeyPrincipal, SessionPrincipal, SetupError
from fastapi_keyauth.testing import FrozenClock, cheap_settings, key_principal, signed_in
from tests.docs.pages import ROOT

auth = KeyAuth(cheap_settings(units=["images"]))
app = FastAPI()
auth.install(app)


@app.get("/both")
async def both(user: Annotated[SessionPrincipal, Security(auth.require_key_and_session, scopes=["a"])]) -> list[str]:
    return [user.user_id, user.key.owner_id if user.key else ""]


@app.get("/maybe")
async def maybe(key: Annotated[KeyPrincipal | None, Depends(auth.optional_key)]) -> str | None:
    return key.owner_id if key else None


router = APIRouter(dependencies=[Depends(auth.require(scopes=["a"]))])


@router.get("/draw", dependencies=[Depends(auth.require(cost={"images": 4}))])
async def draw(key: Annotated[KeyPrincipal, Depends(auth.require(optional=True))]) -> str:
    return key.owner_id


@router.get("/drawn-by")
async def drawn_by(user: Annotated[SessionPrincipal, Security(auth.require(session=True), scopes=["b"])]) -> str:
    return f"{user.user_id} of {user.key.owner_id if user.key else None}"


app.include_router(router, prefix="/v1")


@app.get("/who")
async def who(caller: Annotated[KeyPrincipal | SessionPrincipal, Depends(auth.require_key_or_session)]) -> str:
    return caller.owner_id if isinstance(caller, KeyPrincipal) else caller.user_id


@app.get("/profile")
async def profile(user: Annotated[SessionPrincipal, Depends(auth.require(key=False, session=True))]) -> str:
    return user.user_id


def test_the_clock_stands_until_it_is_moved() -> None:
    clock = FrozenClock(datetime(2030, 1, 1, tzinfo=UTC))
    assert (clock(), clock()) == (clock.now.timestamp(), 1_893_456_000.0)
    clock.move(90)
    clock.move(timedelta(hours=1))
    assert clock.now == datetime(2030, 1, 1, 1, 1, 30, tzinfo=UTC)


def test_a_clock_requires_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        FrozenClock(datetime(2030, 1, 1))  # noqa: DTZ001  # the mistake that is tested


def test_cheap_settings_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYAUTH_HEADER_NAME", "x-from-outside")
    assert cheap_settings().header_name == "api-key"
    assert cheap_settings(header_name="x-mine").header_name == "x-mine"


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(SetupError, match="no_such"):
        cheap_settings(no_such=1)


def test_key_and_session_are_both_given() -> None:
    with signed_in(app, auth, key=key_principal(owner_id="acme"), session=SessionPrincipal("alice")):
        assert TestClient(app).get("/both").json() == ["alice", "acme"]


@pytest.mark.parametrize("who", ["key", "session"])
def test_a_scope_must_be_held_by_both(who: str) -> None:
    key = key_principal(scopes=["b"] if who == "key" else ["a"])
    session = SessionPrincipal("alice", frozenset({"b"} if who == "session" else {"a"}))
    with signed_in(app, auth, key=key, session=session):
        assert TestClient(app).get("/both").json()["missing_scopes"] == ["a"]


def test_a_key_alone_does_not_stand_for_a_session() -> None:
    with signed_in(app, auth, key=key_principal()):
        assert TestClient(app).get("/both").json()["code"] == "missing_api_key"


def test_the_optional_key_is_given_too() -> None:
    with signed_in(app, auth, key=key_principal()):
        assert TestClient(app).get("/maybe").json() == "test-owner"


def test_what_require_returned_is_replaced_too() -> None:
    client = TestClient(app)
    session = SessionPrincipal("alice", frozenset({"a", "b"}))
    with signed_in(app, auth, key=key_principal(owner_id="acme", scopes="a b"), session=session):
        assert client.get("/v1/draw").json() == "acme"
        assert client.get("/v1/drawn-by").json() == "alice of acme"
        assert client.get("/profile").json() == "alice"
    with signed_in(app, auth, key=key_principal(scopes="b"), session=session):
        assert client.get("/v1/draw").json()["missing_scopes"] == ["a"]
    with signed_in(app, auth, key=key_principal(scopes="a"), session=session):
        assert client.get("/v1/drawn-by").json()["missing_scopes"] == ["b"]
    assert client.get("/v1/draw").json()["code"] == "missing_api_key"


def test_a_key_takes_precedence_over_a_session_if_either_is_sufficient() -> None:
    client = TestClient(app)
    with signed_in(app, auth, session=SessionPrincipal("alice")):
        assert client.get("/who").json() == "alice"
        assert client.get("/v1/draw").json()["code"] == "missing_api_key"
        with signed_in(app, auth, key=key_principal(owner_id="acme")):
            assert client.get("/who").json() == "acme"
        assert client.get("/who").json() == "alice"


def test_afterwards_everything_is_as_before() -> None:
    app.dependency_overrides[both] = maybe
    with signed_in(app, auth, key=key_principal()):
        assert {auth.require_key, auth.optional_key, auth.require_key_or_session, both} < {*app.dependency_overrides}
    assert app.dependency_overrides == {both: maybe}
    app.dependency_overrides.clear()
    assert TestClient(app).get("/both").status_code == 401


def test_scopes_may_be_given_as_text() -> None:
    assert key_principal(scopes="items:read items:write").scopes == {"items:read", "items:write"}


APPLICATION = """
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi_keyauth import KeyAuth, KeyPrincipal

app = FastAPI()
auth = KeyAuth()
auth.install(app)


@app.get("/")
async def root(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> int:
    return int(key.owner_id)
"""
SUITE = """
import pytest
from fastapi.testclient import TestClient
from main import app, auth


@pytest.fixture
def keyauth():
    return auth


@pytest.fixture
def keyauth_app():
    return app


@pytest.fixture
def keyauth_owner_id():
    return "7"


def test_old():
    with TestClient(app) as client:
        assert client.get("/").status_code == 401


def test_new(keyauth_client):
    assert keyauth_client.get("/").json() == 7
"""


@pytest.mark.parametrize("database", [None, "sqlite+aiosqlite:///named.db"])
def test_an_existing_suite_with_the_plugin_writes_no_database(tmp_path: Path, database: str | None) -> None:
    for name, text in {"main.py": APPLICATION, "conftest.py": "import main", "test_app.py": SUITE}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".env").write_text("KEYAUTH_DATABASE_URL=sqlite+aiosqlite:///from_env_file.db\n")
    variables = {} if database is None else {"KEYAUTH_DATABASE_URL": database}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "fastapi_keyauth.pytest_plugin", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        # Plugins that are installed here take longer to load than the tests take to run.
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
    assert [file.name for file in tmp_path.glob("*.db")] == ([] if database is None else ["named.db"])
