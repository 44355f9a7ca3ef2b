"""What a Redis says of itself, for whoever checks a set-up."""

import asyncio
import time
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from fastapi_keyauth.limiter.redis.scripts import unavailable


class ServerInfo(NamedTuple):
    """A Redis or Valkey server.

    Attributes:
        version: such as ``Valkey 9.1.2``.
        answer_ms: milliseconds for one answer.
    """

    version: str
    answer_ms: float


async def read_facts(client: Any, timeout_s: float) -> ServerInfo:
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
