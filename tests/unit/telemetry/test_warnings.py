"""Warnings about risky settings at startup, and about lost usage at shutdown."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_keyauth import KeyAuth, KeyAuthSettings, SetupError, StoreUnavailable
from tests.helpers.keys import authenticate, make_key

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.0/8"]}, None),
        ({"argon2_time_cost": 1, "argon2_memory_kib": 8}, "Argon2"),
        ({"argon2_time_cost": 5, "argon2_memory_kib": 7168}, None),
        ({"allowed_origins": ["*"]}, "allowed_origins"),
    ],
)
def test_a_risky_setting_is_logged_as_one_sentence(stack: Any, settings: dict[str, Any], says: str | None) -> None:
    dangers = KeyAuthSettings(_env_file=None, **settings).dangers()
    assert [danger for danger in dangers if says is None or says not in danger] == []
    assert len(dangers) == (says is not None)


async def test_a_silenced_check_is_not_logged_and_others_are(
    make_auth: MakeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    risky = {"allowed_origins": ["*"], "trusted_proxies": ["0.0.0.0/0"]}
    async with make_auth(**risky, silenced_checks=["any_origin", "weak_argon2"]):
        pass
    logged = [vars(record)["reason"] for record in caplog.records if getattr(record, "keyauth_event", None) == "danger"]
    assert logged == ["trusts_every_proxy"]


def test_an_unknown_code_cannot_be_silenced(stack: Any) -> None:
    with pytest.raises(SetupError, match="must have codes of warnings: trusts_every_proxy, "):
        KeyAuthSettings(_env_file=None, silenced_checks=["no_such_check"])


@pytest.mark.parametrize(
    ("arguments", "variable", "warned"),
    [
        (["main:app", "--workers", "4"], None, True),
        (["main:app", "--workers=4"], None, True),
        (["-w", "4", "main:app"], None, True),
        (["main:app", "--workers", "1"], "4", False),
        (["main:app"], "4", True),
        (["main:app"], None, False),
    ],
)
def test_several_workers_without_redis_are_warned_about(
    stack: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None, warned: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["uvicorn", *arguments])
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if variable is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    assert any("workers" in danger for danger in KeyAuthSettings(_env_file=None).dangers()) is warned
    assert not KeyAuthSettings(_env_file=None, redis_url="redis://127.0.0.1").dangers()


def test_a_misspelled_variable_is_named(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYAUTH_BLOK_FOR_S", "5")
    (danger,) = KeyAuthSettings(_env_file=None).dangers()
    assert "KEYAUTH_BLOK_FOR_S" in danger


async def test_usage_that_cannot_be_written_at_the_stop_is_counted(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise StoreUnavailable

    auth = make_auth()
    with caplog.at_level(logging.ERROR, "fastapi_keyauth"):
        async with auth:
            await authenticate(auth, (await make_key(auth)).token)
            monkeypatch.setattr(auth._parts.usage._store, "write", fail)
    assert "usage of 1 keys is lost" in caplog.text


async def test_current_is_a_word_for_reading_alone(make_auth: MakeAuth, make_client: Any) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    client: httpx.AsyncClient = make_client(app)
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        for method in ("PATCH", "DELETE"):
            answer = await client.request(method, "/api-keys/current", headers=session, json={"name": "n"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert (await client.get("/api-keys/current", headers=session)).json()["code"] == "missing_api_key"
