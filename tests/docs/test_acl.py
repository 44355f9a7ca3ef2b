"""The commands that docs/deployment.md has an ACL allow: they are enough."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import KeyAuth, KeyAuthSettings, LimiterUnavailable
from fastapi_keyauth.cli.checks import check_redis
from fastapi_keyauth.limiter import FailoverLimiter
from tests.docs.pages import DOCS
from tests.helpers.keys import authenticate
from tests.helpers.servers import Server


def allowed() -> tuple[list[str], list[str]]:
    """What the service needs, and what the command line needs besides."""
    text = (DOCS / "deployment.md").read_text(encoding="utf-8")
    bullet = text[text.index("- With an ACL, allow the keys") :].partition("\n- ")[0]
    service, _, command_line = bullet.partition(";")
    return re.findall(r"`([A-Z|]+)`", service), re.findall(r"`([A-Z|]+)`", command_line)


@pytest.mark.parametrize("rest", ["/0", "/1", "/0?client_name=billing"])
async def test_the_commands_of_the_acl_are_enough(
    start_valkey: Callable[..., Server], tmp_path: Path, rest: str
) -> None:
    server = start_valkey()
    for_service, for_command_line = allowed()

    async def allow(*commands: str) -> None:
        async with Redis.from_url(server.url) as admin:
            rules = ["-@all", "resetkeys", "~keyauth:*", *(f"+{command}" for command in commands)]
            await admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rules)

    await allow(*for_service)
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
    assert [finding.level for finding in found] == ["warning"], "what it is may not be asked, which is no error"
    async with KeyAuth(settings) as auth:
        created = await auth.keys.create(owner_id="a", name="k")
        for _ in range(2):
            await authenticate(auth, created.token)
        await auth.keys.revoke(created.key.id)
        assert await auth._parts.limiter.record_failure("203.0.113.7") == 0
        with pytest.raises(LimiterUnavailable):
            await auth.blocks.list()
    await allow(*for_service, *for_command_line)
    async with KeyAuth(settings) as auth:
        assert [block.address for block in await auth.blocks.list()] == ["203.0.113.7"]
        assert await auth.blocks.clear("203.0.113.7")
        assert isinstance(auth._parts.limiter, FailoverLimiter)
        assert (await auth._parts.limiter.primary.facts()).version.startswith("Valkey")
