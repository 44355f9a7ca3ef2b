"""What one call to Redis costs: CPU and network, with a lease in it and without."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from fastapi import FastAPI

from benchmarks.growth import settings
from benchmarks.inside import call_app
from fastapi_keyauth import KeyAuth

REQUESTS = 3000
LEASE_CALLS = 2000
"""Number of calls that return a lease and grant the next one."""
_SHORT_MS = 20
"""Duration of their leases. It does not change what a call costs, and the measurement ends sooner."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Redis's CPU microseconds, and bytes in both directions, of one call.

    Attributes:
        one_us, one_bytes: A call with one question, without leases.
        lease_us, lease_bytes: A call of a busy key, which returns a lease and grants the next one.
        lease_calls: Number of these calls.
        lease_requests: Requests of the busy key for each call, in one worker that does nothing else, with the default
            ``lease_ms``.
    """

    one_us: float
    one_bytes: float
    lease_us: float
    lease_bytes: float
    lease_calls: int
    lease_requests: float


@dataclass(frozen=True, slots=True)
class _Seen:
    requests: int
    calls: int
    us: float
    bytes: float


async def measure(folder: Path, redis_url: str) -> Calls:
    """Send requests with one key, one after the other, without leases and then with them."""
    one = await _measure(folder / "one.db", redis_url, {"lease_ms": 0}, calls=10 * REQUESTS)
    short = await _measure(folder / "short.db", redis_url, {"lease_ms": _SHORT_MS}, calls=LEASE_CALLS)
    lease = await _measure(folder / "lease.db", redis_url, {}, calls=50)
    return Calls(one.us, one.bytes, short.us, short.bytes, short.calls, lease.requests / lease.calls)


async def _measure(database: Path, redis_url: str, values: dict[str, Any], calls: int) -> _Seen:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "default_hourly_limit": 1_000_000_000}
    app = FastAPI()

    @app.get("/item")
    async def item() -> dict[str, int]:
        return {"id": 1}

    with redis.Redis.from_url(redis_url) as client:
        async with KeyAuth(settings(database, redis_url=redis_url, **cheap, **values)) as auth:
            auth.protect(app)
            created = await auth.keys.create(owner_id="alice", name="key")
            headers = [(b"api-key", created.token.encode())]

            async def send(count: int) -> None:
                for _ in range(count):
                    if await call_app(app, headers) != 200:
                        raise RuntimeError("a request was not admitted")
                    await asyncio.sleep(0)

            await send(100)
            client.config_resetstat()
            sent = 0
            while True:
                await send(REQUESTS)
                sent += REQUESTS
                stats: dict[str, Any] = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
                if stats["calls"] >= calls:
                    break
            traffic: dict[str, Any] = client.info("stats")
            both = traffic["total_net_input_bytes"] + traffic["total_net_output_bytes"]
            return _Seen(sent, stats["calls"], stats["usec"] / stats["calls"], both / stats["calls"])
