"""Growth of the cost: with keys in the table, and with keys in a worker's cache."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import secrets
import sqlite3
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.environments import find_python
from benchmarks.servers import AppServer
from benchmarks.subjects import ours
from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import ClientAddress
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, secret_tag

TABLES = (100, 10_000, 1_000_000)
WARM = (1, 100, 10_000, 100_000)
_CHEAP = {"argon2_time_cost": 1, "argon2_memory_kib": 8}


def settings(database: Path, **values: object) -> KeyAuthSettings:
    """Return settings for a SQLite file that ignore the environment."""
    url = f"sqlite+aiosqlite:///{database}"
    return KeyAuthSettings(_env_file=None, database_url=url, **values)


def fill(database: Path, count: int) -> list[str]:
    """Copy the one key in a database until it has ``count`` keys, each with its own secret. Return their tokens."""
    tokens: list[str] = []
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        key = dict(connection.execute("SELECT * FROM keyauth_keys").fetchone())
        secret = dict(connection.execute("SELECT * FROM keyauth_secrets").fetchone())
        del secret["id"]

        def keys() -> Iterator[dict[str, object]]:
            for number in range(count - 1):
                key_id, value = new_key_id(), new_secret()
                tokens.append(format_token("ka", "live", key_id, value))
                secret_rows.append({**secret, "key_id": key_id, "tag": secret_tag(value)})
                yield {**key, "id": key_id, "name": f"key {number}", "owner_id": f"owner-{number % 1000}"}

        secret_rows: list[dict[str, object]] = []
        for table, first, rows in (("keyauth_keys", key, keys()), ("keyauth_secrets", secret, iter(secret_rows))):
            names = ", ".join(first)
            marks = ", ".join(f":{name}" for name in first)
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608  # our own names
    return tokens


async def one_key(database: Path) -> None:
    """Create a database with one key."""
    async with KeyAuth(settings(database, **_CHEAP)) as auth:
        await auth.keys.create(owner_id="owner", name="first")


@dataclass(frozen=True, slots=True)
class TableRow:
    """Figures for one table size: requests per second as a share of those with the smallest table."""

    keys: int
    warm: float
    read: float


def by_table(folder: Path, redis_url: str, rounds: int, duration_s: int) -> list[TableRow]:
    """Measure warm keys, and requests that each read the table (a new invalid key), for tables of each size."""
    shares: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        servers: dict[tuple[str, int], AppServer] = {}
        for count in TABLES:
            database = folder / f"{count}.db"
            asyncio.run(one_key(database))
            fill(database, count)
            for kind, credentials, status in (("warm", "valid", 200), ("read", "guesses", 401)):
                subject = ours(f"{kind}-{count}", "", "redis-dependency", credentials, status)
                extra = {"BENCH_DATABASE": str(database), "BENCH_FREEZE": "1"}
                server = AppServer(subject, find_python(""), folder / subject.name, redis_url, extra)
                stack.callback(server.close)
                servers[kind, count] = server
        for number in range(rounds + 1):
            for kind in ("warm", "read"):
                seen: dict[int, float] = {}
                for count in TABLES:
                    server = servers[kind, count]
                    seen[count] = server.load(16, duration_s).per_s
                for count in TABLES:
                    if number:  # The first round warms up.
                        shares.setdefault((kind, count), []).append(seen[count] / seen[TABLES[0]])
    median = {name: statistics.median(values) for name, values in shares.items()}
    return [TableRow(count, median["warm", count], median["read", count]) for count in TABLES]


@dataclass(frozen=True, slots=True)
class CacheRow:
    """Figures for one number of warm keys in a worker: bytes for each, and CPU for a request, in microseconds."""

    keys: int
    bytes_each: float
    request_us: float


def by_cache(folder: Path) -> list[CacheRow]:
    """Measure the process's memory for each warm key, and the cost of a request among them."""
    rows = []
    for count in WARM:
        # Each in its own process: memory that an earlier one freed would be reused unnoticed.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows.append(process.submit(_cache_row, folder / f"cache-{count}.db", count).result())
    return rows


def _cache_row(database: Path, count: int) -> CacheRow:
    asyncio.run(one_key(database))
    tokens = fill(database, count + 1)
    return asyncio.run(_warm(database, tokens))


async def _warm(database: Path, tokens: list[str]) -> CacheRow:
    address = ClientAddress("127.0.0.1", "127.0.0.1", None)
    values = {"cache_size": 1_000_000, "max_staleness_s": 3600, "default_hourly_limit": 1_000_000, **_CHEAP}
    async with KeyAuth(settings(database, **values)) as auth:
        authenticator = auth._parts.request_handler.authenticator

        async def verify_nothing(phc: str, secret: str, owner_id: str) -> bool:
            return True

        # The copies share the first key's hash; here only the cached data counts.
        auth._parts.hasher.verify = verify_nothing  # type: ignore[method-assign]  # the one part that is replaced
        await authenticator.authenticate_key(AuthContext(Credentials(tokens[0]), address, None))
        await auth._parts.usage.flush()
        gc.collect()
        before = psutil.Process().memory_info().rss
        for token in tokens:
            await authenticator.authenticate_key(AuthContext(Credentials(token), address, None))
        await auth._parts.usage.flush()
        gc.collect()
        used = psutil.Process().memory_info().rss - before
        picked = [secrets.choice(tokens) for _ in range(2000)]
        costs = []
        for _ in range(5):
            began = time.process_time()
            for token in picked:
                await authenticator.authenticate_key(AuthContext(Credentials(token), address, None))
            costs.append((time.process_time() - began) / len(picked) * 1e6)
        return CacheRow(len(tokens), used / len(tokens), min(costs))
