"""Which addresses are blocked, and lifting a block. Asked by people and scripts, so plain commands will do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from fastapi_keyauth.limiter.protocol import ceil_s
from fastapi_keyauth.limiter.redis.errors import unavailable

LOOK_TIMEOUT_S = 60.0
"""Seconds to walk through all names of a server; a million take less than one."""
_PAGE = 1000


class RedisBlocks:
    """The blocks that lie in one Redis, under one namespace.

    Args:
        client: of redis-py; one that nobody else uses.
        namespace: first part of every name.
        timeout_s: seconds for one answer.
        clock: seconds since 1970, in place of the server's clock; for tests.
    """

    def __init__(self, client: Any, namespace: str, timeout_s: float, clock: Callable[[], float] | None) -> None:
        self._client = client
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._clock = clock

    async def find(self) -> dict[str, int]:
        """Bucket to whole seconds left. Raises ``LimiterUnavailable``."""
        async with _answering(self._timeout_s):
            await self._client.ping()  # a server that hangs is noticed soon
        found: dict[str, int] = {}
        async with _answering(LOOK_TIMEOUT_S):
            names: list[str] = []
            # An address has a dot or a colon, the id of an API key has neither.
            async for name in self._client.scan_iter(match=f"{self._namespace}:{{*[.:]*}}", count=_PAGE):
                names.append(name)
                if len(names) == _PAGE:
                    found |= await self._look_at(names)
                    names.clear()
            found |= await self._look_at(names)
        return found

    async def _look_at(self, names: list[str]) -> dict[str, int]:
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
        """Forget the block and the failures of a bucket. Whether it was blocked. Raises ``LimiterUnavailable``."""
        name = f"{self._namespace}:{{{bucket}}}"
        async with _answering(self._timeout_s), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(name, "b")
            pipeline.pttl(name)
            pipeline.delete(name)
            until, ttl_ms, _ = await pipeline.execute()
        return self._left_ms(until, ttl_ms) > 0

    def _left_ms(self, until: str | None, ttl_ms: int) -> int:
        if until is None:
            return 0
        return ttl_ms if self._clock is None else int(until) - int(self._clock() * 1000)


@asynccontextmanager
async def _answering(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise unavailable(error) from error
