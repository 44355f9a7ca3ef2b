"""Blocked addresses: listing and lifting. Only people and scripts use it, so plain commands are fast enough."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from fastapi_keyauth.limiter.protocol import ceil_s
from fastapi_keyauth.limiter.redis.errors import unavailable

SCAN_TIMEOUT_S = 60.0
"""Seconds to scan all names of a server; a million take less than one."""
_PAGE = 1000


class RedisBlocks:
    """The blocks in one Redis server, under one namespace.

    Args:
        client: A client of redis-py that nothing else uses.
        namespace: First part of every name.
        timeout_s: Seconds for one answer.
        block_for_ms: Longest block in milliseconds.
        clock: Seconds since 1970, in place of the server's clock; for tests.
    """

    def __init__(
        self, client: Any, namespace: str, timeout_s: float, block_for_ms: int, clock: Callable[[], float] | None
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._block_for_ms = block_for_ms
        self._clock = clock

    async def find(self) -> dict[str, int]:
        """Return the blocked buckets, with the whole seconds left of each block.

        Raises:
            LimiterUnavailable: If the server does not respond in time, or rejects a command.
        """
        async with _in_time(self._timeout_s):
            await self._client.ping()  # a server that hangs is noticed soon
        found: dict[str, int] = {}
        async with _in_time(SCAN_TIMEOUT_S):
            names: list[str] = []
            # An address has a dot or a colon; the id of an API key has neither.
            async for name in self._client.scan_iter(match=f"{self._namespace}:{{*[.:]*}}", count=_PAGE):
                names.append(name)
                if len(names) == _PAGE:
                    found |= await self._read(names)
                    names.clear()
            found |= await self._read(names)
        return found

    async def _read(self, names: list[str]) -> dict[str, int]:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.hget(name, "b")
            pipeline.pttl(name)
        replies = iter(await pipeline.execute() if names else [])
        left = {}
        for name, until, ttl_ms in zip(names, replies, replies, strict=False):
            left_ms = self._left_ms(until, ttl_ms)
            if left_ms > 0:
                left[name[len(self._namespace) + 2 : -1]] = ceil_s(left_ms)
        return left

    async def lift(self, bucket: str) -> bool:
        """Delete the block and the failed attempts of a bucket.

        Returns:
            Whether it was blocked.

        Raises:
            LimiterUnavailable: If the server does not respond in time, or rejects a command.
        """
        name = f"{self._namespace}:{{{bucket}}}"
        async with _in_time(self._timeout_s), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(name, "b")
            pipeline.pttl(name)
            pipeline.delete(name)
            until, ttl_ms, _ = await pipeline.execute()
        return self._left_ms(until, ttl_ms) > 0

    def _left_ms(self, until: str | None, ttl_ms: int) -> int:
        if until is None:
            return 0
        left_ms = ttl_ms if self._clock is None else int(until) - int(self._clock() * 1000)
        return min(left_ms, self._block_for_ms)  # it is longer if it began while the clock was ahead


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise unavailable(error) from error
