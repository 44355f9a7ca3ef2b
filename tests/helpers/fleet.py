"""Connections to every worker of a uvicorn, and a load that records when each request was sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.helpers.session import Servers
from tests.helpers.workers import Workers

WORKERS = 4
BUSY_EACH = 2
CONNECTIONS_EACH = 2 + BUSY_EACH
WARM_UP = 3
"""Requests of each busy connection before the change, so that each worker caches the key."""
MORE = 3
"""Requests of each busy connection after everything else is done."""
PAUSES_S = (0.01, 0.0)
"""Seconds that a busy connection pauses between requests, per round.

Without a pause the concurrency is highest. With one the response to a change comes soonest, so a small delay is
visible.
"""
OPEN_DEADLINE_S = 60.0
LOAD_DEADLINE_S = 60.0

Outcome = tuple[int, str | None]
Request = tuple[Any, ...]
"""Arguments of `Connection.ask`."""


@dataclass(frozen=True)
class Answer:
    """A response, the worker that gave it, and the monotonic times of its request and its arrival."""

    began_at: float
    ended_at: float
    worker: int
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def outcome(self) -> Outcome:
        """Return the status, and the problem's code if it is a problem."""
        return self.status, (self.body or {}).get("code")


class Connection:
    """One connection, held by one worker while it lasts. One request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, base_url: str) -> Self:
        """Open a connection to the worker that accepts it."""
        address = urlsplit(base_url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    def send(self, method: str, path: str, credentials: Mapping[str, str] | None = None, body: Any = None) -> None:
        """Send a request."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"host": "testserver", "content-length": len(content), **(credentials or {})}
        if content:
            headers["content-type"] = "application/json"
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(head.encode() + b"\r\n" + content)

    async def ask(
        self, method: str, path: str, credentials: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request and read its answer."""
        began_at = time.monotonic()
        self.send(method, path, credentials, body)
        status_line, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        answered = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        found = await self._reader.readexactly(int(answered.get("content-length", 0)))
        ended_at = time.monotonic()
        status = int(status_line.split(" ", 2)[1])
        worker = int(answered.get("worker", 0))
        is_json = found and "json" in answered.get("content-type", "")
        return Answer(began_at, ended_at, worker, status, json.loads(found) if is_json else None, answered)


class Fleet:
    """Connections to every worker: one to manage keys, one in reserve, and some that keep it busy.

    Attributes:
        workers: Process ids.
    """

    def __init__(self, by_worker: Mapping[int, list[Connection]]) -> None:
        self.workers = set(by_worker)
        self._managing = [found[0] for found in by_worker.values()]
        self._waiting = [found[1] for found in by_worker.values()]
        self._busy = [connection for found in by_worker.values() for connection in found[2:CONNECTIONS_EACH]]

    async def manage(self, turn: int, *request: Any) -> Answer:
        """Send one request to one worker, the next one each turn."""
        return await self._managing[turn % WORKERS].ask(*request)

    async def storm(self, requests: Iterable[Request], answers: list[Answer] | None = None) -> list[Answer]:
        """Send all these requests, many concurrently on every worker. Meanwhile only keys may be managed.

        Responses are appended as they arrive. The iterator of requests may read them to decide when to stop.
        """
        left = iter(requests)
        found = [] if answers is None else answers

        async def keep_asking(connection: Connection) -> None:
            for request in left:
                found.append(await connection.ask(*request))  # Other tasks read it meanwhile.

        async with asyncio.timeout(LOAD_DEADLINE_S), asyncio.TaskGroup() as group:
            for connection in (*self._waiting, *self._busy):
                group.create_task(keep_asking(connection))
        return found

    async def ask_every_worker(self, path: str, token: str) -> list[Answer]:
        """Send one request to each worker, all concurrently."""
        return await asyncio.gather(*(connection.ask("GET", path, {"api-key": token}) for connection in self._waiting))

    @asynccontextmanager
    async def load(self, turn: int, path: str, token: str) -> AsyncIterator[list[Answer]]:
        """Keep every worker busy with a key, from before the block until after it. Yield the list of responses."""
        answers: list[Answer] = []
        is_over = asyncio.Event()
        pause_s = PAUSES_S[turn // WORKERS % len(PAUSES_S)]

        async def keep_busy(connection: Connection, is_warm: asyncio.Event) -> None:
            left = MORE
            for number in count(1):
                await asyncio.sleep(pause_s)  # The rate of the load, not a wait for anything.
                left -= is_over.is_set()
                answers.append(await connection.ask("GET", path, {"api-key": token}))
                if number == WARM_UP:
                    is_warm.set()
                if left == 0:
                    return

        async with asyncio.timeout(LOAD_DEADLINE_S), asyncio.TaskGroup() as group:
            warm = [asyncio.Event() for _ in self._busy]
            for connection, is_warm in zip(self._busy, warm, strict=True):
                group.create_task(keep_busy(connection, is_warm))
            for is_warm in warm:
                await is_warm.wait()
            yield answers
            is_over.set()

    def everywhere(self, outcome: Outcome) -> dict[int, set[Outcome]]:
        """Return the result of `outcomes` if each worker always gave this response."""
        return {worker: {outcome} for worker in self.workers}


def outcomes(answers: Iterable[Answer]) -> dict[int, set[Outcome]]:
    """Return the distinct responses of each worker."""
    found: dict[int, set[Outcome]] = {}
    for answer in answers:
        found.setdefault(answer.worker, set()).add(answer.outcome)
    return found


@contextmanager
def running_workers(servers: Servers, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Workers]:
    """Run workers with a database of their own; they must end without a traceback."""
    with servers.fresh_postgres_url() as database_url:
        settings = {
            "KEYAUTH_DATABASE_URL": database_url,
            "KEYAUTH_REDIS_URL": servers.fresh_redis_url("valkey"),
            "KEYAUTH_REDIS_TIMEOUT_S": "10",  # Load on the machine must not count as an outage.
            "KEYAUTH_DEFAULT_HOURLY_LIMIT": "none",
            "KEYAUTH_ARGON2_MEMORY_KIB": "8",
            "KEYAUTH_ARGON2_TIME_COST": "1",
            **(env or {}),
        }
        options = ("--no-access-log", "--timeout-keep-alive", "60")
        group = Workers("tests.helpers.workers_app:app", folder, WORKERS, settings, options)
        try:
            yield group
            assert "Traceback" not in group.log()
        finally:
            group.close()


@asynccontextmanager
async def connected_to_every_worker(base_url: str) -> AsyncIterator[Fleet]:
    """Open connections until all workers have enough: the worker that accepts a connection is random."""
    wave_size = WORKERS * CONNECTIONS_EACH
    found: dict[int, list[Connection]] = {}
    async with AsyncExitStack() as cleanup:
        async with asyncio.timeout(OPEN_DEADLINE_S):
            while len(found) < WORKERS or min(map(len, found.values())) < CONNECTIONS_EACH:
                wave = await asyncio.gather(*(Connection.open(base_url) for _ in range(wave_size)))
                for connection in wave:
                    cleanup.push_async_callback(connection.close)
                answers = await asyncio.gather(*(connection.ask("GET", "/open") for connection in wave))
                for connection, answer in zip(wave, answers, strict=True):
                    found.setdefault(answer.worker, []).append(connection)
        yield Fleet(found)
