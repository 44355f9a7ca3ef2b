"""What a Redis server says of itself, as far as it may be asked."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.settings.checks import CheckWarning

MAX_CLOCK_DIFFERENCE_S = 5.0
"""Seconds by which the clocks may differ before it is worth a warning: hosts with NTP are within milliseconds."""


class ServerInfo(NamedTuple):
    """A Redis or Valkey server.

    Attributes:
        version: such as ``Valkey 9.1.2``.
        answer_ms: milliseconds for one answer.
    """

    version: str
    answer_ms: float


async def check_server(client: Redis, timeout_s: float, clock: Callable[[], float] | None) -> list[CheckWarning]:
    """Look for a policy that evicts, and for a clock that is wrong. What is not permitted is left out.

    Args:
        client: of the server; one that nobody else uses.
        timeout_s: seconds for each of the two questions.
        clock: this host's, in seconds since 1970; None where hours do not go by the server's.
    """
    warnings = []
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            # INFO and not CONFIG GET: managed servers allow it.
            memory = await client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        # Without a limit nothing is evicted, whatever the policy. All that lies there has an expiry, so the volatile
        # policies are no better than the others.
        if memory.get("maxmemory") and policy != "noeviction":
            warnings.append(CheckWarning.of("redis_evicts", policy=policy))
    if clock is not None:
        with suppress(RedisError, OSError, TimeoutError):
            before_s = clock()
            async with asyncio.timeout(timeout_s):
                seconds, microseconds = await client.time()
            after_s = clock()
            server_s = seconds + microseconds / 1_000_000
            # The server looked at its clock at some moment in between.
            difference_s = max(before_s - server_s, server_s - after_s)
            if difference_s > MAX_CLOCK_DIFFERENCE_S:
                warnings.append(CheckWarning.of("clocks_differ", seconds=round(difference_s)))
    return warnings


async def read_server_info(client: Any, timeout_s: float) -> ServerInfo:
    """Ask a server, by a client that nobody else uses. Raises ``LimiterUnavailable``."""
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
