"""Checks of a Redis server, and its version, as far as its ACL allows."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.settings.check_warnings import CheckWarning

MAX_CLOCK_DIFFERENCE_S = 5.0
"""Maximum difference of the clocks in seconds, without a warning. Hosts with NTP differ by milliseconds."""


class ServerInfo(NamedTuple):
    """A Redis or Valkey server.

    Attributes:
        version: Name and version, such as ``Valkey 9.1.2``.
        answer_ms: Milliseconds for one answer.
    """

    version: str
    answer_ms: float


async def check_server(client: Redis, timeout_s: float, clock: Callable[[], float] | None) -> list[CheckWarning]:
    """Return warnings about a policy that evicts keys and about a wrong clock. Commands that fail are ignored.

    Args:
        client: A client of the server that nothing else uses.
        timeout_s: Seconds for each of the two commands.
        clock: Clock of this host, in seconds since 1970. None if the server's clock is not used.
    """
    warnings = []
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            # INFO and not CONFIG GET: managed servers allow it.
            memory = await client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        # Without maxmemory nothing is evicted. Everything stored there has an expiry, so the volatile policies are no
        # better than the others.
        if memory.get("maxmemory") and policy != "noeviction":
            warnings.append(CheckWarning.of("redis_evicts", policy=policy))
    if clock is not None:
        with suppress(RedisError, OSError, TimeoutError):
            before_s = clock()
            async with asyncio.timeout(timeout_s):
                seconds, microseconds = await client.time()
            after_s = clock()
            server_s = seconds + microseconds / 1_000_000
            # The server read its clock at some moment in between.
            difference_s = max(before_s - server_s, server_s - after_s)
            if difference_s > MAX_CLOCK_DIFFERENCE_S:
                warnings.append(CheckWarning.of("clocks_differ", seconds=round(difference_s)))
    return warnings


async def read_server_info(client: Any, timeout_s: float) -> ServerInfo:
    """Return version and response time of a server.

    Args:
        client: A client of the server that nothing else uses.
        timeout_s: Seconds for both commands.

    Raises:
        LimiterUnavailable: If the server does not respond in time, or rejects the commands.
    """
    try:
        async with asyncio.timeout(timeout_s):
            info: dict[str, Any] = await client.info("server")
            began = time.perf_counter()
            await client.ping()
            answer_ms = (time.perf_counter() - began) * 1000
    except (RedisError, OSError, TimeoutError) as error:
        raise unavailable(error) from error
    valkey = info.get("valkey_version")
    return ServerInfo(f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '?')}", answer_ms)
