"""Usage that is read from Redis: however much of it, and whoever else wrote to the hash."""

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.usage import UsageOf
from tests.conftest import Stack
from tests.helpers.keys import authenticate, make_key

pytestmark = pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)
MANY = 9000
"""More fields than Lua passes to a command."""


async def read(auth: KeyAuth, key_id: str, owner_id: str, forget_before: int = 0) -> dict[tuple[int, str], int]:
    counts = await auth._parts.limiter.read_usage([UsageOf(key_id, owner_id, None)], forget_before)
    return {(count.hour, count.unit): count.units for count in counts}


async def write(stack: Stack, key_id: str, fields: dict[str, Any]) -> None:
    client: Any = Redis.from_url(stack.settings["redis_url"])
    async with client:
        await client.hset(f"keyauth:ka:{{{key_id}}}", mapping=fields)


async def test_any_number_of_hours_and_units_is_read_and_forgotten(
    make_auth: Callable[..., KeyAuth], stack: Stack
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
        await write(stack, created.key.id, {f"u{hour}": hour for hour in range(1, MANY + 1)})
        seen = await read(auth, created.key.id, "alice", forget_before=MANY)
        assert len(seen) == MANY + 1
        assert seen[MANY // 2, "requests"] == MANY // 2
        left = await read(auth, created.key.id, "alice")
        assert min(hour for hour, _ in left) == MANY


async def test_field_that_somebody_else_wrote_is_left_out(make_auth: Callable[..., KeyAuth], stack: Stack) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
        await write(stack, created.key.id, {"u5": "much", "u6:": "nan", "u7": "7"})
        assert (7, "requests") in await read(auth, created.key.id, "alice")
