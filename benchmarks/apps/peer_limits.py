"""limits 5.8.0, its asynchronous API on Redis: a fixed window of an hour per key, one Redis call per request.

Keys are a dictionary, as in dictionary.py; limits only counts. Fixed window is the cheapest of its strategies. The
client is redis-py with hiredis, documented beside the default, coredis: it took less CPU per hit here.
"""

import os
from typing import Annotated

import common
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from limits import RateLimitItemPerHour
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
OWNERS = {KEY: "alice"}
HOURLY = RateLimitItemPerHour(1_000_000_000)

header = APIKeyHeader(name="api-key")
limiter = FixedWindowRateLimiter(
    storage_from_string(f"async+{os.environ['BENCH_REDIS_URL']}", implementation="redispy")
)
app = FastAPI(lifespan=common.tells([{"api-key": KEY}]))


async def require_owner(key: Annotated[str, Depends(header)]) -> str:
    owner = OWNERS.get(key)
    if owner is None:
        raise HTTPException(401, "Invalid API key", {"WWW-Authenticate": "APIKey"})
    if not await limiter.hit(HOURLY, key):
        raise HTTPException(429, "Hourly limit reached")
    return owner


@app.get("/item")
async def item(owner: Annotated[str, Depends(require_owner)]) -> dict[str, object]:
    return common.ITEM
