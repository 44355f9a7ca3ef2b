"""What open streams cost a worker that checks them again, and how fast it ends them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from starlette.types import Message, Receive, Scope, Send

from benchmarks.growth import fill, one_key, settings
from fastapi_keyauth import KeyAuth
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import ClientAddress

STREAMS = 5000
WATCHED_S = 10.0
TICK_S = 0.005
AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class Streams:
    """Figures of one worker with ``STREAMS`` open streams, of as many keys or of one.

    Attributes:
        cpu_ms_per_s: CPU of the process in ms for each second in which nothing else happens.
        bytes_each: Memory of an open stream, with everything that the request itself holds.
        worst_stall_ms: Longest delay of the event loop by a check.
    """

    cpu_ms_per_s: float
    bytes_each: float
    worst_stall_ms: float


@dataclass(frozen=True, slots=True)
class InFlight:
    """Figures for streams that are checked, those that are not, and the end of all of them.

    Attributes:
        keys: Each stream has a key of its own.
        one_key: All streams have one key.
        unchecked: All streams have one key, and ``end_in_flight_within_s`` is none.
        ended_s: Seconds from the answer to a revocation until all streams of the key have ended.
        end_stall_ms: Longest delay of the event loop meanwhile.
    """

    keys: Streams
    one_key: Streams
    unchecked: Streams
    ended_s: float
    end_stall_ms: float


def measure(folder: Path, redis_url: str) -> InFlight:
    """Measure each case in a process of its own."""
    found = {}
    for name, count, within_s in (("keys", STREAMS, 1.0), ("one_key", 1, 1.0), ("unchecked", 1, None)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            database = folder / f"in-flight-{name}.db"
            found[name] = process.submit(_measure, database, redis_url, count, within_s).result()
    _, ended_s, stall_ms = found["one_key"]
    return InFlight(found["keys"][0], found["one_key"][0], found["unchecked"][0], ended_s, stall_ms)


def _measure(database: Path, redis_url: str, keys: int, within_s: float | None) -> tuple[Streams, float, float]:
    asyncio.run(one_key(database))
    return asyncio.run(_run(database, redis_url, fill(database, keys + 1), within_s))


async def _run(
    database: Path, redis_url: str, tokens: list[str], within_s: float | None
) -> tuple[Streams, float, float]:
    values: dict[str, Any] = {"redis_url": redis_url, "end_in_flight_within_s": within_s, "cache_size": 2 * STREAMS}
    auth = KeyAuth(settings(database, default_hourly_limit=None, **values))
    app = auth.protect(_stream)

    async def verify_nothing(phc: str, secret: str, owner_id: str) -> bool:
        return True

    auth._parts.hasher.verify = verify_nothing  # type: ignore[method-assign]  # the secrets are made up
    async with auth:
        for start in range(0, len(tokens), AT_A_TIME):
            await asyncio.gather(*map(_authenticator(auth), tokens[start : start + AT_A_TIME]))  # now they are cached
        gc.collect()
        process, before = psutil.Process(), psutil.Process().memory_info().rss
        tasks = [asyncio.create_task(_call(app, tokens[n % len(tokens)])) for n in range(STREAMS)]
        await _until_open(STREAMS)
        bytes_each = (process.memory_info().rss - before) / STREAMS
        stalls = _Stalls()
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(WATCHED_S)
        cpu_ms_per_s = (time.process_time() - cpu) / (time.perf_counter() - began) * 1000
        figures = Streams(cpu_ms_per_s, bytes_each, stalls.stop())
        stalls = _Stalls()
        await auth.keys.revoke(tokens[0].split("_")[2])
        began = time.perf_counter()
        if within_s is not None and len(tokens) == 1:
            await asyncio.wait(tasks)
        ended_s = time.perf_counter() - began
        worst_ms = stalls.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return figures, ended_s, worst_ms


class _Stalls:
    """The longest delay of a timer."""

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self._worst_s = max(self._worst_s, time.perf_counter() - began - TICK_S)

    def stop(self) -> float:
        """Return it in ms."""
        self._task.cancel()
        return self._worst_s * 1000


_open = 0


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    """An event stream that sends one event and then waits."""
    global _open  # noqa: PLW0603  # the process exists for this
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    _open += 1
    await asyncio.get_running_loop().create_future()


async def _call(app: Any, token: str) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"benchmark"), (b"api-key", token.encode())],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)


def _authenticator(auth: KeyAuth) -> Callable[[str], Awaitable[object]]:
    """Return a function that admits a request with a token, without HTTP."""
    authenticator = auth._parts.request_handler.authenticator
    address = ClientAddress("127.0.0.1", "127.0.0.1", None)
    return lambda token: authenticator.authenticate_key(AuthContext(Credentials(token), address, None))


async def _until_open(count: int) -> None:
    while _open < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
