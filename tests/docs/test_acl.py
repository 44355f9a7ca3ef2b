"""The commands that docs/how-to/permissions.md has an ACL allow: they are enough."""

from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import KeyAuth, KeyAuthSettings, LimiterUnavailable
from fastapi_keyauth.cli.checks import check_redis
from fastapi_keyauth.limiter import FailoverLimiter
from tests.helpers.acl import command_line_commands, service_commands
from tests.helpers.keys import authenticate
from tests.helpers.servers import Server


@pytest.mark.parametrize("rest", ["/0", "/1", "/0?client_name=billing"])
async def test_the_commands_of_the_acl_are_enough(
    start_valkey: Callable[..., Server], tmp_path: Path, rest: str
) -> None:
    server = start_valkey()

    async def allow(*commands: str) -> None:
        async with Redis.from_url(server.url) as admin:
            rules = ["-@all", "resetkeys", "~keyauth:*", *(f"+{command}" for command in commands)]
            await admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rules)

    await allow(*service_commands())
    settings = KeyAuthSettings(
        _env_file=None,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/keyauth.db",
        redis_url=f"redis://app:pw@127.0.0.1:{server.port}{rest}",
        argon2_memory_kib=8,
        argon2_time_cost=1,
        block_after_failures=1,
        on_limiter_outage="deny",
    )
    found = [finding async for finding in check_redis(settings)]
    assert [(finding.name, finding.level) for finding in found] == [("redis", "warning"), ("leases", "ok")], (
        "INFO is not allowed, which is not an error"
    )
    async with KeyAuth(settings) as auth:
        created = await auth.keys.create(owner_id="a", name="k")
        for _ in range(2):
            await authenticate(auth, created.token)
        await auth.keys.revoke(created.key.id)
        assert await auth._parts.limiter.record_failure("203.0.113.7") == 0
        with pytest.raises(LimiterUnavailable):
            await auth.blocks.list()
    await allow(*service_commands(), *command_line_commands())
    async with KeyAuth(settings) as auth:
        assert [block.address for block in await auth.blocks.list()] == ["203.0.113.7"]
        assert await auth.blocks.clear("203.0.113.7")
        assert isinstance(auth._parts.limiter, FailoverLimiter)
        assert (await auth._parts.limiter.primary.server_info()).version.startswith("Valkey")
