"""fastapi-keygate 0.5.1 as in its README: KeyGate, SHA-256 of the key looked up in SQLite for each request, no cache.

The limit (moving window, hourly alone) is in Redis: three calls one after the other, under a lock of the process. A row
of usage per request, 100 to a commit as the README says for busy apps: here its fastest way, AsyncKeyGate was slower.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import common
from fastapi import Depends, FastAPI
from keygate import ApiKey, KeyGate


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    made = gate.create_key("alice", name="bench", per_minute=None, per_hour=1_000_000_000)
    common.tell([{"X-API-Key": made.key}])
    yield


app = FastAPI(lifespan=lifespan)
gate = KeyGate(
    app,
    db_url=f"sqlite:///{os.environ['BENCH_DIR']}/keys.db",
    limits_uri=os.environ["BENCH_REDIS_URL"],
    usage_batch_size=100,
)


@app.get("/item")
async def item(key: Annotated[ApiKey, Depends(gate.require)]) -> dict[str, object]:
    return common.ITEM
