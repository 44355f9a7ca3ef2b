"""Verification tickets: a worker that starts admits known keys without Argon2, and a forged ticket admits nobody."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import KeyAuth, KeyAuthSettings, RevokedApiKey, SetupError
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.telemetry.counters import Counters
from tests.conftest import Stack
from tests.helpers.keys import Gate, authenticate, make_key
from tests.helpers.servers import Server

TICKET_KEY = "a ticket key of at least 32 characters"
NEW_KEY = "another ticket key of 32 characters or more"

MakeAuth = Callable[..., KeyAuth]
ON_REDIS = pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)


async def issue(make_auth: MakeAuth, **settings: Any) -> Any:
    """Return a key that one process has verified, and that has stored its ticket."""
    async with make_auth(**{"ticket_key": TICKET_KEY, **settings}) as auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
    return created


async def hashes_of(auth: KeyAuth, token: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the number of Argon2 runs that a request costs."""
    hashes = Gate(monkeypatch, auth._parts.hasher, "verify")
    hashes.opened.set()
    await authenticate(auth, token)
    return hashes.calls


def redis_of(stack: Stack) -> Any:
    return Redis.from_url(stack.settings["redis_url"])  # redis-py's types do not say that answers are bytes


async def tickets_in(stack: Stack) -> dict[str, bytes]:
    async with redis_of(stack) as client:
        names = await client.keys("keyauth:*:t*")
        return {name.decode(): await client.get(name) for name in names}


async def store_ticket(stack: Stack, name: str, ticket: bytes) -> None:
    async with redis_of(stack) as client:
        await client.set(name, ticket)


@pytest.mark.parametrize("stack", ["postgres-valkey", "sqlite-redis6", "sqlite-cluster"], indirect=True)
async def test_restarted_worker_admits_known_keys_without_argon2(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await issue(make_auth)
    async with make_auth(ticket_key=TICKET_KEY) as restarted:
        assert await hashes_of(restarted, created.token, monkeypatch) == 0
        assert restarted._parts.metrics.counters.ticketed == 1
        await restarted.keys.revoke(created.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(restarted, created.token)


@ON_REDIS
@pytest.mark.parametrize("settings", [{}, {"ticket_key": NEW_KEY}], ids=["none", "another"])
async def test_without_the_same_ticket_key_argon2_decides(
    make_auth: MakeAuth, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await issue(make_auth)
    async with make_auth(**settings) as restarted:
        assert await hashes_of(restarted, created.token, monkeypatch) == 1


@ON_REDIS
async def test_ticket_key_can_be_replaced_without_a_storm_of_argon2(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await issue(make_auth)
    async with make_auth(ticket_key=f"{NEW_KEY}, {TICKET_KEY}") as restarted:
        assert await hashes_of(restarted, created.token, monkeypatch) == 0


@ON_REDIS
async def test_ticket_of_another_secret_is_worth_nothing(
    make_auth: MakeAuth, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await issue(make_auth)
    ((_, ticket_of_first),) = (await tickets_in(stack)).items()
    second = await issue(make_auth)
    (name,) = (name for name in await tickets_in(stack) if second.key.id in name)
    await store_ticket(stack, name, ticket_of_first)
    async with make_auth(ticket_key=TICKET_KEY) as restarted:
        assert await hashes_of(restarted, second.token, monkeypatch) == 1
    assert (await tickets_in(stack))[name] != ticket_of_first, "the right ticket replaces the wrong one"


@ON_REDIS
@pytest.mark.parametrize("forged", [b"", b"0" * 64, "\u00e4".encode(), b"\xff" * 64, b"1" * 100_000])
async def test_forged_ticket_is_worth_nothing(
    make_auth: MakeAuth, stack: Stack, forged: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await issue(make_auth)
    (name,) = await tickets_in(stack)
    await store_ticket(stack, name, forged)
    async with make_auth(ticket_key=TICKET_KEY) as restarted:
        assert await hashes_of(restarted, created.token, monkeypatch) == 1


@ON_REDIS
async def test_ticket_of_a_secret_ends_with_it(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    created = await issue(make_auth)
    async with make_auth(ticket_key=TICKET_KEY) as other:
        rotated = await other.keys.rotate(created.key.id, overlap=timedelta(0))
    async with make_auth(ticket_key=TICKET_KEY) as restarted:
        assert await hashes_of(restarted, rotated.token, monkeypatch) == 1


@ON_REDIS
async def test_redis_holds_neither_secret_nor_hash(make_auth: MakeAuth, stack: Stack) -> None:
    created = await issue(make_auth)
    async with redis_of(stack) as client:
        stored = b" ".join([*(await tickets_in(stack)).values(), *(await client.keys("*"))])
    assert created.token[-49:-6].encode() not in stored
    assert b"argon2" not in stored
    assert TICKET_KEY.encode() not in stored


@ON_REDIS
async def test_imported_secret_gets_a_ticket_once_it_is_hashed_by_us(
    make_auth: MakeAuth, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "kg_" + "x1" * 20
    settings: dict[str, Any] = {"ticket_key": TICKET_KEY, "imported_prefixes": "kg_"}
    async with make_auth(**settings) as first:
        record = {"owner_id": "ada", "name": "old", "hash": hashlib.sha256(token.encode()).hexdigest()}
        await first.keys.import_keys([record])
        await authenticate(first, token)
    assert await tickets_in(stack) == {}
    async with make_auth(**settings) as second:
        assert await hashes_of(second, token, monkeypatch) == 1
    async with make_auth(**settings) as third:
        assert await hashes_of(third, token, monkeypatch) == 0


@ON_REDIS
async def test_without_redis_argon2_decides(
    make_auth: MakeAuth, start_valkey: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_valkey()
    settings: dict[str, Any] = {"ticket_key": TICKET_KEY, "redis_url": server.url}
    created = await issue(make_auth, **settings)
    async with make_auth(**settings, redis_timeout_s=0.5) as restarted:
        server.kill()
        assert await hashes_of(restarted, created.token, monkeypatch) == 1


def test_short_ticket_key_stops_the_start_without_being_shown() -> None:
    with pytest.raises(SetupError, match="at least 32 characters") as raised:
        KeyAuthSettings(_env_file=None, ticket_key="too short to use")
    assert "too short to use" not in str(raised.value)


def test_ticket_key_is_not_shown_by_the_settings() -> None:
    settings = KeyAuthSettings(_env_file=None, ticket_key=TICKET_KEY)
    assert TICKET_KEY not in repr(settings)
    assert TICKET_KEY not in str(settings.model_dump())
    assert TICKET_KEY not in settings.model_dump_json()


class SlowStore:
    """A store of tickets that waits until the test lets it write."""

    def __init__(self) -> None:
        self.began, self.may_write = asyncio.Event(), asyncio.Event()
        self.written: list[str] = []

    async def write_ticket(self, key_id: str, _secret_id: int, _ticket: str) -> None:
        self.began.set()
        await self.may_write.wait()
        self.written.append(key_id)


async def test_close_waits_for_tickets_that_are_being_written() -> None:
    store: Any = SlowStore()
    key: Any = SimpleNamespace(id="key1", secret_id=1)
    tickets = Tickets([TICKET_KEY], store, Counters())
    tickets.issue_soon(key, "secret", "hash")
    closing = asyncio.create_task(tickets.close())
    await store.began.wait()
    store.may_write.set()
    await closing
    assert store.written == ["key1"]
