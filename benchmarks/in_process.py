# Annotations stay real objects in this module: FastAPI reads them.
"""CPU of an admitted request in one process, without a server: what each way to check a key adds to a bare route."""

import asyncio
import gc
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader

from benchmarks.growth import settings
from benchmarks.inside import call_app
from fastapi_keyauth import KeyAuth, KeyPrincipal

SLICE = 300
"""Requests to one application before the next one takes its turn: short, since the machine's speed drifts."""
TURNS = 20
"""Turns of each application in a round."""
WARM_UP = 30
"""Requests before each slice that are not measured: a lease ends while the other applications have their turns."""
_KEYS = {"a key in a dictionary": "alice"}


def _bare() -> FastAPI:
    app = FastAPI()

    @app.get("/item")
    async def item() -> dict[str, int]:
        return {"id": 1}

    return app


def _dictionary() -> FastAPI:
    app = FastAPI()
    header = APIKeyHeader(name="api-key")

    async def find_owner(key: Annotated[str, Depends(header)]) -> str:
        owner = _KEYS.get(key)
        if owner is None:
            raise HTTPException(401)
        return owner

    @app.get("/item")
    async def item(owner: Annotated[str, Depends(find_owner)]) -> dict[str, int]:
        return {"id": 1}

    return app


async def _ours(stack: AsyncExitStack, file: Path, redis_url: str | None, *, by_middleware: bool) -> tuple[Any, str]:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "default_hourly_limit": 1_000_000_000}
    auth = await stack.enter_async_context(KeyAuth(settings(file, redis_url=redis_url, **cheap)))
    created = await auth.keys.create(owner_id="alice", name="key")
    if by_middleware:
        app = _bare()
        auth.protect(app)
        return app, created.token
    app = FastAPI()

    @app.get("/item")
    async def item(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, int]:
        return {"id": 1}

    auth.install(app)
    return app, created.token


async def above_bare(folder: Path, redis_url: str, rounds: int) -> dict[str, float]:
    """Return microseconds of CPU for a request: of the bare route, and what each other application adds to it."""
    async with AsyncExitStack() as stack:
        apps: Mapping[str, tuple[Any, str]] = {
            "bare": (_bare(), ""),
            "dictionary": (_dictionary(), next(iter(_KEYS))),
            "memory": await _ours(stack, folder / "memory.db", None, by_middleware=False),
            "memory-protect": await _ours(stack, folder / "memory-protect.db", None, by_middleware=True),
            "redis": await _ours(stack, folder / "redis.db", redis_url, by_middleware=False),
            "redis-protect": await _ours(stack, folder / "redis-protect.db", redis_url, by_middleware=True),
        }
        for app, token in apps.values():
            await _slice(app, token)  # warms up
        gc.collect()
        gc.disable()
        try:
            seen = [
                {name: await _slice(app, token) for name, (app, token) in apps.items()} for _ in range(rounds * TURNS)
            ]
        finally:
            gc.enable()
    figures = {name: statistics.median(turn[name] - turn["bare"] for turn in seen) for name in apps}
    return figures | {"bare": statistics.median(turn["bare"] for turn in seen)}


async def _slice(app: Any, token: str) -> float:
    headers = [(b"api-key", token.encode())]
    began = 0.0
    for number in range(WARM_UP + SLICE):
        if number == WARM_UP:
            began = time.process_time()
        if await call_app(app, headers) != 200:
            raise RuntimeError("a request was not admitted")
        await asyncio.sleep(0)  # as a server does between two requests: timers and replies get their turn
    return (time.process_time() - began) / SLICE * 1e6
