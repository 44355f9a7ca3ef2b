"""Warnings at startup, and during the first requests."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from redis.asyncio import Redis
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.http.proxy_check import MAX_CHECKED, ProxyHeaderCheck
from fastapi_keyauth.limiter.redis.server_info import check_server
from fastapi_keyauth.settings.check_warnings import SENTENCES
from fastapi_keyauth.settings.checks import run_checks
from tests.helpers.servers import Server
from tests.helpers.session import Servers

MEMORY = {"database_url": "sqlite+aiosqlite://", "argon2_time_cost": 5, "argon2_memory_kib": 7168}


@pytest.fixture(autouse=True)
def nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the command line and the variables of a plain `uvicorn main:app`."""
    monkeypatch.setattr(sys, "argv", ["uvicorn", "main:app"])
    for name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def build(**settings: Any) -> KeyAuth:
    return KeyAuth(KeyAuthSettings(_env_file=None, **{**MEMORY, **settings}))


def codes_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the codes of the logged warnings."""
    return [record.__dict__["reason"] for record in caplog.records if record.levelno == logging.WARNING]


def codes_of(**settings: Any) -> list[str]:
    """Return the codes of warnings about the settings alone."""
    return [warning.code for warning in run_checks(KeyAuthSettings(**{**MEMORY, **settings}))]


@pytest.mark.parametrize("name", [".env", "prod.env"])
def test_a_misspelled_variable_in_a_dotenv_file_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert codes_of() == []
    Path(name).write_text("KEYAUTH_REALM=notes\nkeyauth_blok_for_s=5\nOTHER=1\n", "utf-8")
    settings = KeyAuthSettings(**MEMORY, **({} if name == ".env" else {"_env_file": name}))
    assert settings.realm == "notes"
    (danger,) = settings.dangers()
    assert "KEYAUTH_BLOK_FOR_S" in danger
    assert "OTHER" not in danger
    assert codes_of(_env_file=None) == []


@pytest.mark.parametrize(
    ("line", "variables", "is_warned"),
    [
        ("main:app --forwarded-allow-ips *", {}, True),
        ("main:app --forwarded-allow-ips=*", {}, True),
        ("main:app", {"FORWARDED_ALLOW_IPS": "*"}, True),
        ("main:app", {"GUNICORN_CMD_ARGS": "--forwarded-allow-ips=*"}, True),
        ("main:app --forwarded-allow-ips 10.0.0.1", {"FORWARDED_ALLOW_IPS": "*"}, False),
        ("main:app --no-proxy-headers", {"FORWARDED_ALLOW_IPS": "*"}, False),
        ("main:app --uds /run/api.sock --forwarded-allow-ips *", {}, False),
        ("main:app -b unix:/run/api.sock --forwarded-allow-ips=*", {}, False),
    ],
)
def test_a_server_that_trusts_every_peer_is_warned_about(
    line: str, variables: dict[str, str], is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["server", *line.split()])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert codes_of(_env_file=None) == ["server_trusts_everyone"] * is_warned


@pytest.mark.parametrize(
    ("line", "variable", "is_warned"),
    [("-w4 main:app", "", True), ("main:app", "--workers=3", True), ("main:app --log-w 4", "", False)],
)
def test_the_workers_of_gunicorn_are_seen_too(
    line: str, variable: str, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gunicorn", *line.split()])
    monkeypatch.setenv("GUNICORN_CMD_ARGS", variable)
    assert codes_of(_env_file=None) == ["workers_without_redis"] * is_warned


@pytest.mark.parametrize(
    ("forwarded", "settings", "is_warned"),
    [
        ("198.51.100.9", {}, True),
        (None, {}, False),
        ("198.51.100.9", {"trusted_proxies": "10.0.0.0/8"}, False),  # both were told of the same ones
    ],
)
async def test_a_server_that_replaced_the_peer_is_noticed_once(
    forwarded: str | None,
    settings: dict[str, Any],
    is_warned: bool,
    make_client: Callable[..., httpx.AsyncClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Replaced by uvicorn's own middleware, which is around every application."""
    auth = build(**settings)
    app = auth.protect(FastAPI())
    served: Any = ProxyHeadersMiddleware(app, "127.0.0.1")  # type: ignore[arg-type]  # uvicorn's types of ASGI
    client = make_client(served, "127.0.0.1", base_url="http://testserver:8000")
    async with auth:
        for _ in range(2):
            await client.get("/", headers={} if forwarded is None else {"x-forwarded-for": forwarded})
    assert codes_in(caplog) == ["peer_replaced"] * is_warned


@pytest.mark.parametrize("trusted_proxies", ["", "127.0.0.1"])
@pytest.mark.parametrize(
    ("is_told", "proto", "is_warned"), [(False, "https", True), (False, "http", False), (True, "https", False)]
)
async def test_a_server_that_ignores_https_is_noticed_once(
    trusted_proxies: str,
    is_told: bool,
    proto: str,
    is_warned: bool,
    make_client: Callable[..., httpx.AsyncClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    auth = build(trusted_proxies=trusted_proxies)
    app = auth.protect(FastAPI())
    served: Any = ProxyHeadersMiddleware(app, "127.0.0.1") if is_told else app  # type: ignore[arg-type]  # see above
    client = make_client(served, "127.0.0.1", base_url="http://testserver:8000")
    async with auth:
        for _ in range(2):
            await client.get("/", headers={"x-forwarded-proto": proto})
    assert codes_in(caplog) == ["https_ignored"] * is_warned


def test_only_the_first_requests_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    watch, plain = (
        ProxyHeaderCheck(False),
        {"client": ("203.0.113.7", 50_000), "server": ("127.0.0.1", 80), "headers": []},
    )
    assert [watch.check(plain) for _ in range(MAX_CHECKED)] == [True] * (MAX_CHECKED - 1) + [False]
    on_a_socket = {
        "client": ("203.0.113.7", 0),
        "server": ("/run/api.sock", None),
        "headers": [(b"x-forwarded-for", b"203.0.113.7")],
    }
    assert ProxyHeaderCheck(is_behind_proxies=False).check(on_a_socket)
    assert codes_in(caplog) == []


async def test_a_scope_that_no_key_can_have_is_named_with_its_routes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    auth = build(scopes=["items:read", "items:write"])
    app, router = FastAPI(), APIRouter(dependencies=[Security(auth.require_key, scopes=["itmes:read"])])
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")  # wants keys:read and keys:write, which always exist

    async def writer(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> KeyPrincipal:
        return key

    @router.get("/items")
    async def items(key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["items:read"])]) -> str:
        return key.name

    app.include_router(router, prefix="/v1")

    @app.post("/items")
    async def add(key: Annotated[KeyPrincipal, Security(writer, scopes=["items:wirte"])]) -> str:
        return key.name

    @app.websocket("/live")
    async def live(socket: WebSocket, key: Annotated[KeyPrincipal, Security(writer, scopes=["items:wirte"])]) -> None:
        await socket.close()

    @app.get("/me")
    async def me(user: Annotated[SessionPrincipal, Security(auth.require_session, scopes=["profile"])]) -> str:
        return user.user_id

    app.get("/draw", dependencies=[Depends(auth.require(scopes=["imgaes", "items:read"], session=True))])(lambda: None)
    app.get("/either", dependencies=[Security(auth.require_key_or_session, scopes=["imgaes"])])(lambda: None)
    app.get("/my", dependencies=[Depends(auth.require(scopes=["profile"], key=False, session=True))])(lambda: None)

    async with auth:
        pass
    assert codes_in(caplog) == ["unknown_scope"] * 3
    assert sorted(record.getMessage() for record in caplog.records) == [
        SENTENCES["unknown_scope"].format(scope="imgaes", paths="/draw, /either"),
        SENTENCES["unknown_scope"].format(scope="items:wirte", paths="/items, /live"),
        SENTENCES["unknown_scope"].format(scope="itmes:read", paths="/v1/items"),
    ]


async def test_without_a_catalog_routes_may_require_any_scope(caplog: pytest.LogCaptureFixture) -> None:
    auth, app = build(), FastAPI()
    auth.install(app)

    @app.get("/items")
    async def items(key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["itmes:read"])]) -> str:
        return key.name

    async with auth:
        pass
    assert codes_in(caplog) == []


async def test_a_redis_that_evicts_causes_a_warning_and_one_that_cannot_be_checked_does_not(
    start_valkey: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    redis = start_valkey("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru")
    async with build(redis_url=redis.url):
        pass
    assert codes_in(caplog) == ["redis_evicts"]
    assert "volatile-lru" in caplog.text
    caplog.clear()
    async with Redis.from_url(redis.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "api", "on", ">pw", "~*", "+@all", "-info")
    place = redis.url.partition("@")[2]
    async with build(redis_url=f"redis://api:pw@{place}"):
        pass
    assert codes_in(caplog) == []


async def test_a_clock_that_is_far_from_that_of_redis_is_warned_about(servers: Servers) -> None:
    async with Redis.from_url(servers.fresh_redis_url("valkey")) as client:
        for shift_s in (-60, 0, 60):
            found = await check_server(client, 5.0, lambda shift_s=shift_s: time.time() + shift_s)  # type: ignore[misc]  # a default is no argument
            assert [danger.code for danger in found] == ["clocks_differ"] * (shift_s != 0)
        assert await check_server(client, 5.0, None) == []
