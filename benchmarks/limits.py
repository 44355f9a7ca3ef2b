"""CPU of a request by the number of its limits: of the worker, and of Redis."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from fastapi import FastAPI

from benchmarks.growth import settings
from benchmarks.inside import call_app
from fastapi_keyauth import KeyAuth, Limit

CONNECTIONS = 16
_SLICE = 320
"""Requests with one set of limits before the next set takes its turn: short, since the machine's speed drifts."""
_TURNS = 6
"""Turns of each set of limits in a round."""
_PER = ("hour", "day", "month", 7200, 14_400, 43_200, 172_800, 604_800)
_MANY = 1_000_000_000
_WORKER, _REDIS, _BATCH = range(3)
_Turns = list[list[tuple[float, float, float]]]
"""For each turn and each set of limits: CPU us of a request in the worker and in Redis, and requests per call."""


@dataclass(frozen=True, slots=True)
class LimitsRow:
    """Figures for one set of limits: microseconds of CPU for a request, and above the key's hourly limit alone.

    "Leased" requests are admitted with leases, which are on by default, "asked" ones by a call to Redis.

    Attributes:
        label: Which limits.
        further: Number of limits besides the key's hourly one.
        leased_us: CPU of the process that runs the application and sends the requests, with leases.
        leased_above_us: How much of it is above the hourly limit alone.
        asked_us: CPU of that process without leases.
        asked_above_us: How much of it is above the hourly limit alone.
        redis_us: CPU of Redis without leases.
        redis_above_us: How much of it is above the hourly limit alone.
        batch: Requests that share one call to Redis without leases.
    """

    label: str
    further: int
    leased_us: float
    leased_above_us: float
    asked_us: float
    asked_above_us: float
    redis_us: float
    redis_above_us: float
    batch: float


@dataclass(frozen=True, slots=True)
class _Subject:
    label: str
    of_key: int
    of_owner: int = 0
    owners: int = CONNECTIONS


SUBJECTS = (
    _Subject("1 of the key, per hour", 1),
    *(_Subject(f"{count} of the key", count) for count in (2, 4, 8)),
    _Subject("1 of the key, 1 of their common owner", 1, 1, owners=1),
    _Subject("1 of the key, 1 of an owner of its own", 1, 1),
)


def _limits(count: int) -> list[Limit]:
    return [Limit(name=f"limit{n}" if n else "hour", limit=_MANY, per=per) for n, per in enumerate(_PER[:count])]


class _Meter:
    """CPU seconds of this process and of Redis, and calls of scripts, since it was read last."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._last = self._read()

    def _read(self) -> tuple[float, float, int]:
        cpu: dict[str, Any] = self._client.info("cpu")
        calls = self._client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        server = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
        return time.process_time(), server, calls

    def read(self) -> tuple[float, float, int]:
        now, last = self._read(), self._last
        self._last = now
        return now[0] - last[0], now[1] - last[1], now[2] - last[2]


async def by_limits(folder: Path, redis_url: str, rounds: int) -> list[LimitsRow]:
    """Measure admitted requests of 16 keys, sent concurrently, with each set of limits in turn."""
    leased = await _measure(folder / "limits-leased.db", redis_url, rounds, {})
    asked = await _measure(folder / "limits-asked.db", redis_url, rounds, {"lease_ms": 0})
    return [_row(number, subject, leased, asked) for number, subject in enumerate(SUBJECTS)]


async def _measure(database: Path, redis_url: str, rounds: int, leases: dict[str, int]) -> _Turns:
    app = FastAPI()

    @app.get("/item")
    async def item() -> dict[str, int]:
        return {"id": 1}

    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
    async with KeyAuth(settings(database, redis_url=redis_url, **leases, **cheap)) as auth:
        auth.protect(app)
        tokens = [await _create(auth, number, subject) for number, subject in enumerate(SUBJECTS)]
        with redis.Redis.from_url(redis_url) as client:
            meter = _Meter(client)
            await _turn(app, tokens, meter)  # warms up
            gc.collect()
            gc.disable()
            try:
                return [await _turn(app, tokens, meter) for _ in range(rounds * _TURNS)]
            finally:
                gc.enable()


async def _create(auth: KeyAuth, number: int, subject: _Subject) -> list[str]:
    tokens = []
    for n in range(CONNECTIONS):
        owner_id = f"owner-{number}-{n % subject.owners}"
        if subject.of_owner:
            await auth.owners.set(owner_id, limits=_limits(subject.of_owner + 1)[1:])
        key = await auth.keys.create(owner_id=owner_id, name="key", limits=_limits(subject.of_key))
        tokens.append(key.token)
    return tokens


async def _turn(app: FastAPI, tokens: list[list[str]], meter: _Meter) -> list[tuple[float, float, float]]:
    """Return CPU microseconds of worker and Redis for a request, and requests per call, with each set of limits."""
    figures = []
    for subject in tokens:
        await _requests(app, subject, CONNECTIONS)
        meter.read()
        await _requests(app, subject, _SLICE)
        worker_s, redis_s, calls = meter.read()
        figures.append((worker_s / _SLICE * 1e6, redis_s / _SLICE * 1e6, _SLICE / max(1, calls)))
    return figures


async def _requests(app: FastAPI, tokens: list[str], count: int) -> None:
    async def send(token: str) -> None:
        for _ in range(count // len(tokens)):
            if await call_app(app, [(b"api-key", token.encode())]) != 200:
                raise RuntimeError("a request was not admitted")

    await asyncio.gather(*map(send, tokens))


def _row(number: int, subject: _Subject, leased: _Turns, asked: _Turns) -> LimitsRow:
    def median(turns: _Turns, figure: int) -> float:
        return statistics.median(turn[number][figure] for turn in turns)

    def above(turns: _Turns, figure: int) -> float:
        return statistics.median(turn[number][figure] - turn[0][figure] for turn in turns)

    return LimitsRow(
        subject.label,
        subject.of_key + subject.of_owner - 1,
        leased_us=median(leased, _WORKER),
        leased_above_us=above(leased, _WORKER),
        asked_us=median(asked, _WORKER),
        asked_above_us=above(asked, _WORKER),
        redis_us=median(asked, _REDIS),
        redis_above_us=above(asked, _REDIS),
        batch=median(asked, _BATCH),
    )
