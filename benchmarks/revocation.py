"""Time until a revocation is answered while other keys are in use, with and without leases."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from benchmarks.growth import settings
from benchmarks.inside import call_app
from fastapi_keyauth import KeyAuth

CLIENTS = 16
PAUSE_S = 0.01
"""Seconds between two requests of a client. A worker that is never idle would measure its own queue."""
REVOCATIONS = 30


@dataclass(frozen=True, slots=True)
class Revocation:
    """Median milliseconds of a revocation: without leases, and with leases of ``lease_ms``."""

    without_ms: float
    with_ms: float
    lease_ms: int


async def measure(folder: Path, redis_url: str) -> Revocation:
    """Revoke keys in use, one after the other, while clients send about a thousand requests per second."""
    lease_ms = KeyAuth(settings(folder / "unused.db")).settings.lease_ms
    without, with_leases = [await _revoke(folder / f"revocation-{ms}.db", redis_url, ms) for ms in (0, lease_ms)]
    return Revocation(without, with_leases, lease_ms)


async def _revoke(database: Path, redis_url: str, lease_ms: int) -> float:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "default_hourly_limit": 1_000_000_000}
    app = FastAPI()

    @app.get("/item")
    async def item() -> dict[str, int]:
        return {"id": 1}

    is_over = False

    async def send(token: str) -> None:
        while not is_over:
            await call_app(app, [(b"api-key", token.encode())])
            await asyncio.sleep(PAUSE_S)

    async with KeyAuth(settings(database, redis_url=redis_url, lease_ms=lease_ms, **cheap)) as auth:
        auth.protect(app)
        created = [await auth.keys.create(owner_id="alice", name="key") for _ in range(CLIENTS + REVOCATIONS)]
        clients = [asyncio.create_task(send(key.token)) for key in created[:CLIENTS]]
        took_ms = []
        for key in created[CLIENTS:]:
            for _ in range(20):  # busy, so that it has a lease
                await call_app(app, [(b"api-key", key.token.encode())])
            began = time.perf_counter()
            await auth.keys.revoke(key.key.id)
            took_ms.append((time.perf_counter() - began) * 1000)
        is_over = True
        await asyncio.gather(*clients)
        return statistics.median(took_ms)
