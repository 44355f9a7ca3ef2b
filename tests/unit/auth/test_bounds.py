"""Memory stays bounded whatever clients send: each structure by itself, and all of a KeyAuth together."""

import ast
import asyncio
import builtins
import gc
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from fastapi import FastAPI

import fastapi_keyauth
from fastapi_keyauth import KeyAuth, TooManyKeys
from fastapi_keyauth.auth import hashing
from fastapi_keyauth.domain.fields import NewKey
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, new_session_token
from fastapi_keyauth.keys import turns
from fastapi_keyauth.limiter.protocol import Policy
from fastapi_keyauth.limiter.redis import known_blocks
from fastapi_keyauth.limiter.redis.single import SingleNodeLimiter
from tests.helpers.keys import Gate, authenticate, make_key

MakeAuth = Callable[..., KeyAuth]
SMALL = 20
FLOOD = 150
TINY = {
    "fastapi_keyauth.auth.key_cache.MAX_NEGATIVE": SMALL,
    "fastapi_keyauth.domain.ip_addresses.MAX_PEERS": SMALL,
    "fastapi_keyauth.limiter.memory.MAX_ADDRESSES": SMALL,
    "fastapi_keyauth.limiter.memory.MAX_KEYS": SMALL,
    "fastapi_keyauth.limiter.redis.known_blocks._MAX_KNOWN_BLOCKS": SMALL,
    "fastapi_keyauth.telemetry.observer.MAX_LIMITED": SMALL,
}
BY_NATURE = 60
"""More than any of our structures holds that does not grow: a KeyAuth's own parts and settings, for instance."""

in_memory = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
both_limiters = pytest.mark.parametrize("stack", ["sqlite-memory", "sqlite-redis6"], indirect=True)


def containers_of(root: object) -> Iterator[tuple[str, int]]:
    """Return the containers of all objects of the package that `root` refers to, with their sizes."""
    seen = {id(root)}
    queue: list[tuple[str, Any]] = [(type(root).__name__, root)]
    while queue:
        name, thing = queue.pop()
        if isinstance(thing, dict | list | set | frozenset | tuple | deque):
            yield name, len(thing)
        if hasattr(thing, "cache_info"):
            continue  # a cache of a function, whose bound another test looks at
        for inner in gc.get_referents(thing):
            is_container = isinstance(inner, dict | list | set | tuple | deque | FunctionType) or hasattr(
                inner, "cache_info"
            )
            is_ours = type(inner).__module__.startswith("fastapi_keyauth") or inspect.iscoroutine(inner)
            if id(inner) not in seen and (is_ours or is_container) and not isinstance(inner, type | ModuleType):
                if isinstance(inner, FunctionType) and not str(inner.__module__).startswith("fastapi_keyauth"):
                    continue
                if isinstance(inner, dict) and ("__builtins__" in inner or inner is vars(builtins)):
                    continue  # a module's names
                seen.add(id(inner))
                queue.append((f"{name}.{type(inner).__name__}", inner))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every bound that is not a setting small enough to be reached."""
    for name, bound in TINY.items():
        monkeypatch.setattr(name, bound)


async def flood(auth: KeyAuth, app: FastAPI, make_client: Any) -> None:
    """Send requests that each have another token, origin, address, path, parameter and session."""
    known = (await make_key(auth)).key.id
    for number in range(FLOOD):
        address = f"2001:db8:{number:x}::1" if number % 2 else f"203.0.{number // 256}.{number % 256}"
        headers = {
            "api-key": format_token("ka", "live", known if number % 3 else new_key_id(), new_secret()),
            "authorization": f"Bearer {new_session_token()}",
            "origin": f"https://{number}.example",
            "x-forwarded-for": f"198.51.100.{number % 256}, 2001:db8:{number:x}::2",
        }
        async with make_client(app, address) as client:
            answer = await client.get(f"/api-keys/{new_key_id()}?q={number}", headers=headers)
            assert answer.status_code in (401, 429)
            await client.options(f"/{number}", headers={**headers, "access-control-request-method": f"M{number}"})


@both_limiters
async def test_a_flood_of_everything_leaves_nothing_that_grows(
    make_auth: MakeAuth, make_client: Any, tiny: None
) -> None:
    auth = make_auth(cache_size=SMALL, trusted_proxies=["203.0.0.0/16"], block_after_failures=1)
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    async with auth:
        await flood(auth, app, make_client)
        sizes = list(containers_of(auth))
        assert [(name, size) for name, size in sizes if size > BY_NATURE] == []
        full = {name.rpartition(".")[0] for name, size in sizes if size == SMALL}
        assert any("KeyCache" in name for name in full), sizes  # the walk has met what fills up
        if auth.settings.redis_url is not None:
            limiter = auth._parts.limiter
            assert len(limiter.primary._known_blocks) <= SMALL  # type: ignore[attr-defined]  # of the FailoverLimiter


@in_memory
async def test_verified_keys_are_cached_up_to_the_setting(make_auth: MakeAuth) -> None:
    async with make_auth(cache_size=3) as auth:
        keys = [await make_key(auth) for _ in range(6)]
        for key in keys * 2:
            await authenticate(auth, key.token)
        verifier = auth._parts.request_handler.authenticator._verifier
        assert len(verifier.key_cache) == 3
        assert not verifier._secrets._hashes._tasks
        assert not verifier._reads._tasks


@in_memory
async def test_many_tasks_in_flight_leave_nothing_behind(make_auth: MakeAuth) -> None:
    async with make_auth(block_after_failures=100_000) as auth:
        key = await make_key(auth)
        await authenticate(auth, key.token)
        guesses = [format_token("ka", "live", key.key.id, new_secret()) for _ in range(50)]
        refused = await asyncio.gather(*[authenticate(auth, guess) for guess in guesses], return_exceptions=True)
        assert len(refused) == 50
        await asyncio.sleep(0)
        verifier = auth._parts.request_handler.authenticator._verifier
        assert not verifier._secrets._hashes._tasks
        assert not verifier._reads._tasks


@in_memory
async def test_an_owner_with_the_maximum_number_of_keys_causes_no_more_hashes(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        hashes = Gate(monkeypatch, auth._parts.hasher, "hash")
        hashes.opened.set()
        await auth.keys._management.create(NewKey(name="n"), "a", max_keys=1)
        for _ in range(3):
            with pytest.raises(TooManyKeys):
                await auth.keys._management.create(NewKey(name="n"), "a", max_keys=1)
        assert hashes.calls == 1


@in_memory
async def test_code_that_creates_many_keys_of_one_owner_waits_for_all_of_them(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hashing, turns):
        monkeypatch.setattr(module, "MAX_WAITING_OF_OWNER", 2)
        monkeypatch.setattr(module, "MAX_WAITING", 4)
    async with make_auth() as auth:
        created = await asyncio.gather(*[auth.keys.create("a", f"migrated {number}") for number in range(40)])
        renamed = await asyncio.gather(*[auth.keys.update(each.key.id, name="renamed") for each in created])
        assert {key.name for key in renamed} == {"renamed"}
        read = await asyncio.gather(*[auth.keys.get(each.key.id) for each in created])
        assert len(read) == 40
        await asyncio.gather(*[auth.keys.revoke(key.id) for key in read])


def test_known_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_blocks, "_MAX_KNOWN_BLOCKS", SMALL)
    limiter = SingleNodeLimiter("redis://127.0.0.1:1/0", Policy(1, 1000, 60_000), "t", 0.1, lambda: 0.0)
    for number in range(FLOOD):
        limiter._cache_block(str(number), 60)
    assert len(limiter._known_blocks) == SMALL
    assert limiter.known_block_s(str(FLOOD - 1)) == 60


def test_a_peer_longer_than_any_name_is_ignored_and_not_cached() -> None:
    resolver = AddressResolver([], 64)
    assert resolver.resolve(("a" * 300, 1), []) is None
    assert not resolver._peers


def test_every_cache_of_a_function_has_a_size() -> None:
    for path in Path(fastapi_keyauth.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name != "cache", f"{path}: functools.cache has no bound"
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "lru_cache":
                sizes = [word.value for word in node.keywords if word.arg == "maxsize"]
                assert sizes, f"{path}:{node.lineno}"
                assert isinstance(sizes[0], ast.Constant)
                assert isinstance(sizes[0].value, int)
                assert sizes[0].value <= 4096
