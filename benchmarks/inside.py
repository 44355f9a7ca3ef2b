# Annotations stay real objects in this module: FastAPI reads them.
"""Measurements inside one process: stalls by hashing, calls of the request path, bytes in Redis."""

import asyncio
import gc
import inspect
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import psutil
import redis
from fastapi import Depends, FastAPI

from benchmarks.growth import fill, one_key, settings
from fastapi_keyauth import KeyAuth, KeyPrincipal

NEW_KEYS = 200
_TICK_S = 0.001
_PACKAGE = f"{Path('src') / 'fastapi_keyauth'}"


@dataclass(frozen=True, slots=True)
class Hashing:
    """Figures for ``NEW_KEYS`` new keys that arrive concurrently.

    Attributes:
        worst_stall_ms: Longest delay of the event loop once all of them were waiting for their hash.
        burst_stall_ms: Longest delay in the burst before that, while the first of them are already being hashed.
        plain_stall_ms: Longest delay in the same burst without hashing.
        took_s: Time until all were admitted.
        each_ms: Duration of one hash by itself.
        threads: Maximum number of threads that hashed concurrently.
        memory_mib: Growth of the process while ``NEW_KEYS`` hashes and nothing else waited for their turn.
        allowed_mib: ``max_concurrent_hashes`` times ``argon2_memory_kib``.
    """

    worst_stall_ms: float
    burst_stall_ms: float
    plain_stall_ms: float
    took_s: float
    each_ms: float
    threads: int
    memory_mib: float
    allowed_mib: float


async def call_app(app: Any, headers: list[tuple[bytes, bytes]]) -> int:
    """Send a request to an application in this process, and return the status."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/item",
        "raw_path": b"/item",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def _app(auth: KeyAuth, protect: bool) -> FastAPI:
    app = FastAPI()
    if protect:

        @app.get("/item")
        async def item() -> dict[str, int]:
            return {"id": 1}

        auth.protect(app)
    else:

        @app.get("/item")
        async def item_of_key(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, int]:
            return {"id": 1}

        auth.install(app)
    return app


class _Burst:
    """A burst of new keys, with measurements of the event loop, the threads and the memory."""

    def __init__(self, auth: KeyAuth, tokens: list[str]) -> None:
        self._auth = auth
        self._tokens = tokens
        self._verify = auth._parts.hasher.verify
        self._started = 0
        self._done = asyncio.Event()
        self.stalls_s = {"burst": 0.0, "hashing": 0.0}
        self.threads = 0
        self.took_s = 0.0

    async def run(self, app: Any, *, hash_them: bool) -> "_Burst":
        async def verify(phc: str, secret: str, owner_id: str) -> bool:
            self._started += 1
            return await self._verify(phc, secret, owner_id) if hash_them else True

        self._auth._parts.hasher.verify = verify  # type: ignore[method-assign]  # to see when all of them wait
        gc.collect()
        gc.freeze()  # As docs/how-to/deployment.md recommends; a collection stalls the loop longer than any hash.
        watching = asyncio.create_task(self._watch())
        began = time.perf_counter()
        seen = await asyncio.gather(*(call_app(app, [(b"api-key", token.encode())]) for token in self._tokens))
        self.took_s = time.perf_counter() - began
        self._done.set()
        await watching
        self._auth._parts.hasher.verify = self._verify  # type: ignore[method-assign]  # as it was
        if set(seen) != {200}:
            raise RuntimeError(f"not all were admitted: {set(seen)}")
        return self

    async def _watch(self) -> None:
        while not self._done.is_set():
            phase = "hashing" if self._started == len(self._tokens) else "burst"
            before = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            self.stalls_s[phase] = max(self.stalls_s[phase], time.perf_counter() - before - _TICK_S)
            self.threads = max(self.threads, sum("keyauth-argon2" in one.name for one in threading.enumerate()))


async def _memory_of_hashing(auth: KeyAuth) -> int:
    """Return the bytes by which the process grows while many hashes wait for a thread, before any other hash."""
    process = psutil.Process()
    before = most = process.memory_info().rss
    phc = await auth._parts.hasher.hash("one by itself", "a")
    waiting = asyncio.gather(*(auth._parts.hasher.verify(phc, "one by itself", f"owner {n}") for n in range(NEW_KEYS)))
    while (await asyncio.wait([waiting], timeout=_TICK_S))[1]:
        most = max(most, process.memory_info().rss)
    if not all(waiting.result()):
        raise RuntimeError("a hash did not fit its secret")
    return most - before


async def hashing(folder: Path, redis_url: str) -> Hashing:
    """Measure the first requests of many keys sent concurrently, with the default Argon2 settings."""
    database = folder / "hashing.db"
    await one_key(database)
    copies = fill(database, NEW_KEYS + 1)
    async with KeyAuth(settings(database, redis_url=redis_url)) as auth:
        memory = await _memory_of_hashing(auth)
        app = _app(auth, protect=False)
        without = await _Burst(auth, copies).run(app, hash_them=False)
        began = time.perf_counter()
        await auth._parts.hasher.hash("one by itself", "a")
        each_ms = (time.perf_counter() - began) * 1000
        made = await asyncio.gather(*(auth.keys.create(owner_id="a", name="new") for _ in range(NEW_KEYS)))
        seen = await _Burst(auth, [key.token for key in made]).run(app, hash_them=True)
        allowed_kib = auth.settings.max_concurrent_hashes * auth.settings.argon2_memory_kib
        return Hashing(
            worst_stall_ms=seen.stalls_s["hashing"] * 1000,
            burst_stall_ms=seen.stalls_s["burst"] * 1000,
            plain_stall_ms=max(without.stalls_s.values()) * 1000,
            took_s=seen.took_s,
            each_ms=each_ms,
            threads=seen.threads,
            memory_mib=memory / 2**20,
            allowed_mib=allowed_kib / 1024,
        )


@dataclass(frozen=True, slots=True)
class Hops:
    """Python calls of this package for one warm request: their number, and how many coroutines await each other."""

    calls: int
    depth: int


async def hops(folder: Path, redis_url: str, protect: bool) -> Hops:
    """Count calls with Python's own profiler hook."""
    async with KeyAuth(settings(folder / f"hops-{protect}.db", redis_url=redis_url)) as auth:
        app = _app(auth, protect)
        created = await auth.keys.create(owner_id="alice", name="k")
        headers = [(b"api-key", created.token.encode())]
        for _ in range(5):
            await call_app(app, headers)
        calls = deepest = 0

        def depth_of(frame: FrameType | None) -> int:
            depth = 0
            while frame is not None:
                depth += _is_ours(frame) and bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
                frame = frame.f_back
            return depth

        started: set[int] = set()

        def on_event(frame: FrameType, event: str, _argument: object) -> None:
            nonlocal calls, deepest
            if event == "call" and _is_ours(frame):
                deepest = max(deepest, depth_of(frame))
                if id(frame) not in started:  # Resuming a coroutine is not a new call.
                    started.add(id(frame))
                    kept.append(frame)
                    calls += 1

        kept: list[FrameType] = []  # Kept so that no id is reused.
        sys.setprofile(on_event)
        try:
            await call_app(app, headers)
        finally:
            sys.setprofile(None)
        return Hops(calls, deepest)


def _is_ours(frame: FrameType) -> bool:
    return _PACKAGE in frame.f_code.co_filename or "site-packages/fastapi_keyauth" in frame.f_code.co_filename


async def redis_bytes(folder: Path, redis_url: str) -> float:
    """Return the average number of bytes that Redis stores for each used key."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "max_keys_per_owner": 1000}
        async with KeyAuth(settings(folder / "bytes.db", redis_url=redis_url, **cheap)) as auth:
            app = _app(auth, protect=False)
            made = [await auth.keys.create(owner_id="alice", name="k") for _ in range(200)]
            for key in made * 10:
                await call_app(app, [(b"api-key", key.token.encode())])
        names = [name for name in client.scan_iter("keyauth:*") if b"probe" not in name]
        return sum(int(client.memory_usage(name) or 0) for name in names) / len(made)
