"""Listing and lifting blocks, with and without Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import Block, InvalidField, KeyAuth, LimiterUnavailable
from fastapi_keyauth.limiter.redis.known_blocks import KNOWN_BLOCK_S
from tests.conftest import Stack
from tests.helpers.keys import authenticate, make_key
from tests.helpers.servers import Server

V4, V6_BUCKET = "198.51.100.9", "2001:db8:1:2::/64"
START = 1_700_000_000.0


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def auth(make_auth: Callable[..., KeyAuth]) -> AsyncIterator[KeyAuth]:
    async with make_auth(block_after_failures=2, block_for_s=100) as auth:
        yield auth


async def fail(auth: KeyAuth, bucket: str, times: int = 2) -> None:
    for _ in range(times):
        await auth._parts.limiter.record_failure(bucket)


async def test_those_who_are_blocked_are_listed_and_those_who_failed_once_are_not(auth: KeyAuth) -> None:
    created = await make_key(auth)
    await authenticate(auth, created.token)  # a name of another kind in the same namespace
    assert await auth.blocks.list() == []
    await fail(auth, "192.0.2.77", times=1)
    await fail(auth, V4)
    await fail(auth, V6_BUCKET)
    found = await auth.blocks.list()
    assert sorted(block.address for block in found) == sorted([V4, V6_BUCKET])
    assert all(90 < block.ends_in_s <= 100 for block in found)


@pytest.mark.parametrize(("bucket", "said"), [(V4, f"::ffff:{V4}"), (V6_BUCKET, "2001:db8:1:2::99"), (V6_BUCKET,) * 2])
async def test_a_block_is_lifted_by_any_spelling_of_the_address(auth: KeyAuth, bucket: str, said: str) -> None:
    await fail(auth, bucket)
    assert await auth.blocks.clear(said) is True
    assert await auth.blocks.clear(said) is False
    assert await auth.blocks.list() == []
    await fail(auth, bucket, times=1)
    assert await auth.blocks.list() == [], "the failures before the block were not forgotten"


async def test_clearing_also_resets_failed_attempts_without_a_block(auth: KeyAuth) -> None:
    await fail(auth, V4, times=1)
    assert await auth.blocks.clear(V4) is False
    await fail(auth, V4, times=1)
    assert await auth.blocks.list() == []


async def test_values_that_are_not_addresses_are_rejected(auth: KeyAuth) -> None:
    with pytest.raises(InvalidField, match="address"):
        await auth.blocks.clear("keyauth:*")


async def test_a_block_that_is_over_is_not_listed(make_auth: Callable[..., KeyAuth]) -> None:
    clock = Clock()
    async with make_auth(block_after_failures=1, block_for_s=100, clock=clock) as auth:
        await fail(auth, V4, times=1)
        clock.now += 60
        assert await auth.blocks.list() == [Block(V4, 40)]
        clock.now += 40
        assert await auth.blocks.list() == []
        assert await auth.blocks.clear(V4) is False


@pytest.mark.parametrize("stack", ["postgres-valkey", "sqlite-redis6"], indirect=True)
async def test_other_workers_soon_notice_a_lifted_block(make_auth: Callable[..., KeyAuth]) -> None:
    clock = Clock()
    settings: dict[str, Any] = {"block_after_failures": 1, "block_for_s": 100, "clock": clock}
    async with make_auth(**settings) as worker, make_auth(**settings) as script:
        await fail(worker, V4)
        assert worker._parts.limiter.known_block_s(V4)
        assert await script.blocks.clear(V4)
        clock.now += KNOWN_BLOCK_S
        assert not await worker._parts.limiter.record_failure(V4)


@pytest.mark.parametrize("stack", ["sqlite-redis6"], indirect=True)
async def test_many_blocks_are_all_found(auth: KeyAuth) -> None:
    addresses = {f"10.{number // 250}.{number % 250}.1" for number in range(1200)}
    await asyncio.gather(*(fail(auth, address) for address in addresses))
    assert {block.address for block in await auth.blocks.list()} == addresses


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_an_unavailable_redis_is_an_error_instead_of_an_empty_list(
    stack: Stack, make_auth: Callable[..., KeyAuth], start_valkey: Callable[..., Server]
) -> None:
    server = start_valkey()
    async with make_auth(redis_url=server.url) as auth:
        server.kill()
        for ask in (auth.blocks.list, auth.blocks.list, lambda: auth.blocks.clear(V4)):
            with pytest.raises(LimiterUnavailable):
                await ask()


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_listing_blocks_without_permission_is_not_an_outage(
    stack: Stack, make_auth: Callable[..., KeyAuth], start_valkey: Callable[..., Server]
) -> None:
    """Neither is a scan that takes too long: it says nothing about the checks of requests."""
    server = start_valkey()
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~keyauth:*", "+@all", "-scan", "-pttl")
    url = f"redis://app:pw@{server.url.partition('@')[2]}"
    async with make_auth(redis_url=url, on_limiter_outage="deny") as auth:
        created = await make_key(auth)
        for ask in (auth.blocks.list, lambda: auth.blocks.clear(V4)):
            with pytest.raises(LimiterUnavailable, match="NoPermission"):
                await ask()
            assert (await authenticate(auth, created.token)).id == created.key.id
