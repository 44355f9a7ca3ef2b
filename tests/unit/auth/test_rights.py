"""What is read to find the running requests that would be refused now, and what happens if it cannot be read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.session_checks import authenticate_session
from fastapi_keyauth.errors import KeyAuthError, StoreUnavailable
from tests.helpers.keys import Gate, store_of
from tests.helpers.redis_outage import build
from tests.helpers.servers import Server
from tests.helpers.waiting import until


@dataclass(eq=False)
class Request:
    """A running request, without HTTP."""

    context: AuthContext
    began_at: float
    scope: Scope = field(default_factory=lambda: {"type": "http", "headers": []})


async def _begin(auth: KeyAuth, token: str, began_at: float = 1.0) -> Request:
    # The first request with a key reads a row without a generation, which proves nothing about the row.
    contexts = [AuthContext(Credentials(token), None, None) for _ in range(2)]
    for context in contexts:
        await auth._parts.authenticator.authenticate_key(context)
    return Request(contexts[-1], began_at)


async def _lost(auth: KeyAuth, requests: list[Request], at: float = 2.0) -> dict[Request, type[KeyAuthError]]:
    rights = auth._parts.rights
    lost = await rights.find_lost_sessions(requests, at) | await rights.find_lost_keys(requests, at)
    return {request: type(error) for request, error in lost.items()}


class Reads:
    """Counts the rows that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, auth: KeyAuth) -> None:
        self.ids: list[int] = []
        self.is_broken = False
        self._real = store_of(auth).find_by_secrets
        monkeypatch.setattr(store_of(auth), "find_by_secrets", self)

    async def __call__(self, secret_ids: Any) -> Any:
        if self.is_broken:
            raise StoreUnavailable
        self.ids += secret_ids
        return await self._real(secret_ids)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One database is enough here: the contract's tests read rows and sessions on both."""
    return f"sqlite+aiosqlite:///{tmp_path / 'keyauth.db'}"


@pytest.fixture
def redis(start_valkey: Callable[..., Server]) -> Server:
    return start_valkey()


@asynccontextmanager
async def _started(database_url: str, redis: Server, **settings: Any) -> AsyncIterator[KeyAuth]:
    auth = build(database_url, redis, **settings)
    async with auth:
        yield auth


async def test_a_row_is_read_once_after_a_change_and_never_without_one(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis) as auth:
        reads = Reads(monkeypatch, auth)
        made = [await auth.keys.create("ada", f"k{number}") for number in range(3)]
        requests = [await _begin(auth, key.token) for key in made for _ in range(2)]
        assert await _lost(auth, requests) == {}
        assert reads.ids == []
        await auth.keys.update(made[0].key.id, name="another")
        for _ in range(3):
            assert await _lost(auth, requests) == {}
        assert len(reads.ids) == 1
        await auth.owners.set("ada", name="Ada")
        for _ in range(3):
            assert await _lost(auth, requests) == {}
        assert len(reads.ids) == 4


async def test_a_key_that_does_not_exist_any_more_ends_its_requests(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis) as auth:
        made = await auth.keys.create("ada", "k")
        request = await _begin(auth, made.token)

        async def find_none(secret_ids: Any) -> dict[int, Any]:
            return {}

        monkeypatch.setattr(store_of(auth), "find_by_secrets", find_none)
        await auth.keys.update(made.key.id, name="another")
        assert [kind.__name__ for kind in (await _lost(auth, [request])).values()] == ["InvalidApiKey"]


async def test_a_request_that_was_admitted_while_the_row_was_read_is_checked_by_the_new_row(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own row is older than the proof, although both are there before the next check."""
    async with _started(database_url, redis) as auth:
        made = await auth.keys.create("ada", "k")
        first, late = await _begin(auth, made.token), await _begin(auth, made.token)
        await auth.keys.update(made.key.id, allowed_ips=["192.0.2.1"])
        assert await _lost(auth, [first]) != {}
        assert list(await _lost(auth, [late])) == [late]


@pytest.mark.parametrize("policy", ["local", "deny"])
async def test_during_an_outage_of_redis(database_url: str, redis: Server, policy: str) -> None:
    async with _started(database_url, redis, on_limiter_outage=policy, max_in_flight_unchecked_s=30) as auth:
        made, other = await auth.keys.create("ada", "k"), await auth.keys.create("ada", "other")
        old, young = await _begin(auth, made.token, began_at=100), await _begin(auth, other.token, began_at=110)
        assert await _lost(auth, [old, young], at=111) == {}
        redis.kill()
        assert await _lost(auth, [old, young], at=140) == {}
        found = await _lost(auth, [old, young], at=141)
        assert sorted(kind.__name__ for kind in found.values()) == (
            [] if policy == "local" else ["LimiterUnavailable", "LimiterUnavailable"]
        )
        with pytest.raises(KeyAuthError):  # stored, and not announced
            await auth.keys.revoke(made.key.id)
        found = await _lost(auth, [old], at=142)
        assert [kind.__name__ for kind in found.values()] == [
            "RevokedApiKey" if policy == "local" else "LimiterUnavailable"
        ]


async def test_after_an_outage_all_rows_are_read_once(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis) as auth:
        reads = Reads(monkeypatch, auth)
        made = await auth.keys.create("ada", "k")
        request = await _begin(auth, made.token)
        redis.kill()
        assert await _lost(auth, [request]) == {}
        redis.restart()
        await until(lambda: not auth._parts.limiter._breaker.is_open)  # type: ignore[attr-defined]
        reads.ids.clear()
        for _ in range(3):
            assert await _lost(auth, [request]) == {}
        assert len(reads.ids) == 1


@pytest.mark.parametrize("policy", ["local", "deny"])
async def test_changed_rows_that_cannot_be_read(
    database_url: str, redis: Server, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis, on_limiter_outage=policy, max_in_flight_unchecked_s=30) as auth:
        reads = Reads(monkeypatch, auth)
        made, other = await auth.keys.create("ada", "k"), await auth.keys.create("ada", "other")
        changed, unchanged = await _begin(auth, made.token, began_at=100), await _begin(auth, other.token, began_at=100)
        await auth.keys.revoke(made.key.id)
        reads.is_broken = True
        assert await _lost(auth, [changed, unchanged], at=129) == {}
        expected = {} if policy == "local" else {changed: StoreUnavailable}
        assert await _lost(auth, [changed, unchanged], at=130) == expected
        reads.is_broken = False
        assert [kind.__name__ for kind in (await _lost(auth, [changed])).values()] == ["RevokedApiKey"]


async def test_all_rows_are_read_again_when_the_database_recovers_or_was_replaced(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis) as auth:
        reads = Reads(monkeypatch, auth)
        made = await auth.keys.create("ada", "k")
        for doubt in (auth._parts.database.on_recovery, store_of(auth).lineage.on_break):
            request = await _begin(auth, made.token, began_at=asyncio.get_running_loop().time())
            assert await _lost(auth, [request]) == {}
            assert reads.ids == []
            doubt()
            later = asyncio.get_running_loop().time() + 1
            for _ in range(2):
                assert await _lost(auth, [request], at=later) == {}
            assert len(reads.ids) == 1
            reads.ids.clear()


@pytest.mark.parametrize(("max_staleness_s", "reads_expected"), [(0, 3), (1, 3), (10, 2), (3600, 1)])
async def test_without_redis_rows_are_read_again_before_they_are_too_old(
    database_url: str, max_staleness_s: float, reads_expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi_keyauth import KeyAuthSettings

    settings = KeyAuthSettings(
        _env_file=None,
        database_url=database_url,
        max_staleness_s=max_staleness_s,
        argon2_time_cost=1,
        argon2_memory_kib=8,
    )
    async with KeyAuth(settings) as auth:
        reads = Reads(monkeypatch, auth)
        made = await auth.keys.create("ada", "k")
        request = await _begin(auth, made.token)
        for at in (100, 105, 112):
            assert await _lost(auth, [request], at=at) == {}
        assert len(reads.ids) == reads_expected


async def test_sessions_are_read_together(database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _started(database_url, redis) as auth:
        tokens = [await auth.sessions.create(f"user{number}") for number in range(5)]
        requests = [await _begin_with_session(auth, token) for token in tokens * 2]
        counted = Gate(monkeypatch, auth._parts.sessions._store, "find_all")
        counted.opened.set()
        await auth.sessions.revoke(tokens[0])
        assert list(await _lost(auth, requests)) == [requests[0], requests[5]]
        assert counted.calls == 1


@pytest.mark.parametrize("policy", ["local", "deny"])
async def test_sessions_that_cannot_be_read(
    database_url: str, redis: Server, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _started(database_url, redis, on_limiter_outage=policy) as auth:
        request = await _begin_with_session(auth, await auth.sessions.create("ada"), began_at=100)

        async def fail(*_: Any) -> None:
            raise StoreUnavailable

        assert await _lost(auth, [request], at=101) == {}
        monkeypatch.setattr(auth._parts.sessions._store, "find_all", fail)
        assert await _lost(auth, [request], at=130) == {}
        assert await _lost(auth, [request], at=131) == ({} if policy == "local" else {request: StoreUnavailable})


async def _begin_with_session(auth: KeyAuth, token: str, began_at: float = 1.0) -> Request:
    from starlette.requests import HTTPConnection

    credentials = Credentials()
    credentials.session = token
    context = AuthContext(credentials, None, None)
    request = Request(context, began_at)
    gate = auth._parts.authenticator.sessions
    await authenticate_session(gate, context, HTTPConnection(request.scope), None)
    return request
