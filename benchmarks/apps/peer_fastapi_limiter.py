"""fastapi-limiter 0.2.0 on Redis, by pyrate-limiter 4.5: one Redis call per request, one at a time per process.

Keys are a dictionary, as in dictionary.py. Its README shows a limit in memory that all callers share; a limit per key
in Redis takes a factory of buckets, from the README of pyrate-limiter. GCRA in place of the default log: it keeps one
number per key, where the log would keep each request of the hour.
"""

import os
from typing import Annotated

import common
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import (
    AbstractBucket,
    BucketFactory,
    Duration,
    Limiter,
    Rate,
    RateItem,
    RedisStateStore,
    StateBucket,
    WallClock,
)
from redis.asyncio import Redis

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
OWNERS = {KEY: "alice"}
HOURLY = Rate(1_000_000_000, Duration.HOUR)


class BucketPerName(BucketFactory):
    """Counters each name for itself, in a Redis key of its own. Nothing leaks: idle keys expire."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.clock = WallClock()
        self.made: dict[str, AbstractBucket] = {}

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Stamp it with the time."""
        return RateItem(name, self.clock.now(), weight=weight)

    def get(self, item: RateItem) -> AbstractBucket:
        """Give the bucket of this name."""
        bucket = self.made.get(item.name)
        if bucket is None:
            bucket = self.made[item.name] = StateBucket([HOURLY], store=RedisStateStore(self.redis, item.name))
        return bucket


async def key_of(request: Request) -> str:
    """What requests are counted by."""
    return request.headers["api-key"]


header = APIKeyHeader(name="api-key")
limiter = Limiter(BucketPerName(Redis.from_url(os.environ["BENCH_REDIS_URL"])))
app = FastAPI(lifespan=common.tells([{"api-key": KEY}]))


async def require_owner(key: Annotated[str, Depends(header)]) -> str:
    owner = OWNERS.get(key)
    if owner is None:
        raise HTTPException(401, "Invalid API key", {"WWW-Authenticate": "APIKey"})
    return owner


@app.get("/item", dependencies=[Depends(require_owner), Depends(RateLimiter(limiter, identifier=key_of))])
async def item() -> dict[str, object]:
    return common.ITEM
