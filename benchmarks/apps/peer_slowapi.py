"""slowapi 0.1.10 on Redis: its decorator with the default strategy (fixed window), one Redis call per request.

Keys are a dictionary, as in dictionary.py; slowapi only counts. Its headers stay off, as they are by default: they
would cost more calls. It knows no asynchronous storage, so each call to Redis holds up the event loop.
"""

import os
from typing import Annotated

import common
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
OWNERS = {KEY: "alice"}


def key_of(request: Request) -> str:
    """What requests are counted by. The key is known by then: dependencies come before the decorated function."""
    return request.headers["api-key"]


header = APIKeyHeader(name="api-key")
limiter = Limiter(key_func=key_of, storage_uri=os.environ["BENCH_REDIS_URL"])
app = FastAPI(lifespan=common.tells([{"api-key": KEY}]))
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


async def require_owner(key: Annotated[str, Depends(header)]) -> str:
    owner = OWNERS.get(key)
    if owner is None:
        raise HTTPException(401, "Invalid API key", {"WWW-Authenticate": "APIKey"})
    return owner


@app.get("/item")
@limiter.limit("1000000000/hour")
async def item(request: Request, owner: Annotated[str, Depends(require_owner)]) -> dict[str, object]:
    return common.ITEM
