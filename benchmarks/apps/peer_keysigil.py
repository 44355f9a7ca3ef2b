"""keysigil 0.1.2 as in its README: KeyForgeAuth, SHA-256 of the key looked up in SQLite for each request, no cache.

The limit (approximate sliding window) counts in Redis, three calls per request. KeyForge takes no Redis URL, so the
limiter is put in by hand, built as the docstring of keysigil.storage.redis says; left alone it would count in SQLite,
with a commit per request. No token budgets.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
from fastapi import Depends, FastAPI
from keysigil import KeyForge
from keysigil.core.rate_limit import SlidingWindowLimiter
from keysigil.middleware.fastapi import KeyForgeAuth
from keysigil.storage.redis import RedisRateLimitStorage

forge = KeyForge(f"sqlite:///{os.environ['BENCH_DIR']}/keys.db")
forge._limiter = SlidingWindowLimiter(RedisRateLimitStorage(os.environ["BENCH_REDIS_URL"]))
auth = KeyForgeAuth(forge)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    await forge.setup()
    made = await forge.create_key(name="bench", rate_limit={"requests": 1_000_000_000, "window": "1h"})
    common.tell([{"X-API-Key": made.plaintext}])
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/item", dependencies=[Depends(auth)])
async def item() -> dict[str, object]:
    return common.ITEM
