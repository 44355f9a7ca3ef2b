"""Workers on one database and, if there is one, one Redis, in this process and under one clock."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis
from fastapi import FastAPI

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.store.tables import metadata
from tests.helpers.asgi import RawAnswer, call
from tests.helpers.contract_app import build_app

from .parts import Request, Rules

Result = TypeVar("Result")

START = 1_800_000_000.0  # A Friday in 2027, at the full hour.
INTO_THE_HOUR_S = 3000.0
WORKERS_WITH_REDIS = 3


@dataclass(frozen=True)
class Seen:
    """A worker's answer, reduced to the parts that the model predicts."""

    status: int
    code: str | None
    retry_after_s: int | None
    limits: tuple[int, int, int] | None
    body: Any
    origin: str | None
    varies: bool
    challenges: tuple[str, ...]

    @classmethod
    def of(cls, answer: RawAnswer) -> Seen:
        """Extract the parts from the raw answer."""
        found: dict[str, list[str]] = {}
        for name, value in answer.headers:
            found.setdefault(name.decode().lower(), []).append(value.decode())
        retry_after = found.get("retry-after")
        return cls(
            status=answer.status,
            code=answer.code,
            retry_after_s=None if retry_after is None else int(retry_after[0]),
            limits=_limits(found.get("ratelimit-policy"), found.get("ratelimit")),
            body=json.loads(answer.body) if answer.body else None,
            origin=found.get("access-control-allow-origin", [None])[0],
            varies="Origin" in found.get("vary", []),
            challenges=tuple(found.get("www-authenticate", [])),
        )


def _limits(policy: list[str] | None, limit: list[str] | None) -> tuple[int, int, int] | None:
    if policy is None and limit is None:
        return None
    assert policy is not None
    assert limit is not None
    quota = re.fullmatch(r'"hour";q=(\d+);w=3600', policy[0])
    left = re.fullmatch(r'"hour";r=(\d+);t=(\d+)', limit[0])
    assert quota is not None, policy
    assert left is not None, limit
    return int(quota[1]), int(left[1]), int(left[2])


class World:
    """Workers that can be called and restarted, and whose Redis can be emptied.

    Args:
        database: A file that does not exist yet.
        redis_url: None for one worker with the limiter in memory.
        rules: The settings, shared with the model.
    """

    def __init__(self, database: Path, redis_url: str | None, rules: Rules) -> None:
        self.now = START
        self._database = database
        self._redis_url = redis_url
        self._settings = KeyAuthSettings(
            _env_file=None,
            database_url=f"sqlite+aiosqlite:///{database}",
            redis_url=redis_url,
            redis_timeout_s=10,  # Load on the machine must not count as an outage.
            argon2_time_cost=1,
            argon2_memory_kib=8,
            argon2_parallelism=1,
            **{name: getattr(rules, name) for name in rules.__dataclass_fields__},
        )
        # Never the current loop of this thread: pytest-asyncio keeps one for the other tests.
        self._loop = asyncio.new_event_loop()
        self.auths: list[KeyAuth] = []
        self._apps: list[FastAPI] = []
        self.empty_redis()
        for _ in range(1 if redis_url is None else WORKERS_WITH_REDIS):
            auth, app = self._start_worker()
            self.auths.append(auth)
            self._apps.append(app)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine while the workers run; between such calls they are paused."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Stop the workers."""
        for auth in self.auths:
            self.run(auth.__aexit__(None, None, None))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def begin_anew(self) -> None:
        """Empty the database and Redis, and advance the clock until everything that workers have cached is over.

        Creating new workers for each of hundreds of stories would take longer than the stories.
        """
        self.write_usage()
        self.empty_redis()
        # In a thread, because a paused worker may hold the lock.
        self.run(asyncio.to_thread(self._empty_database))
        self.now = (self.now // 3600 + 3) * 3600 + INTO_THE_HOUR_S

    def _empty_database(self) -> None:
        with closing(sqlite3.connect(self._database, isolation_level=None)) as database:
            for table in metadata.tables:
                database.execute(f"DELETE FROM {table}")  # noqa: S608  # the names of our own tables

    def write_usage(self) -> None:
        """Have each worker write its counts, as any code does before it lists keys."""
        for auth in self.auths:
            self.run(auth.keys.list(limit=1))

    def restart(self, worker: int) -> None:
        """Stop a worker as a deployment does, and start another in its place."""
        self.run(self.auths[worker].__aexit__(None, None, None))
        self.auths[worker], self._apps[worker] = self._start_worker()

    def empty_redis(self) -> None:
        """Empty Redis, as a restart of a server without persistence does."""
        if self._redis_url is not None:
            with redis.Redis.from_url(self._redis_url) as client:
                client.flushdb()
                client.script_flush()

    def another_process(self) -> KeyAuth:
        """Return a KeyAuth on the same stores that is not a worker, as in a script."""
        return KeyAuth(self._settings, clock=lambda: self.now)

    def ask(self, worker: int, request: Request, body: Any = None) -> Seen:
        """Send one request to a worker."""
        return self.run(self._ask(worker, request, body))

    def ask_at_once(self, workers: list[int], request: Request) -> list[Seen]:
        """Send the same request concurrently to several workers, or several times to one."""

        async def ask_all() -> list[Seen]:
            return await asyncio.gather(*(self._ask(worker, request) for worker in workers))

        return self.run(ask_all())

    def preflight(self, worker: int, origin: str) -> Seen:
        """Send a browser's preflight request."""
        announced = [(b"access-control-request-method", b"GET"), (b"access-control-request-headers", b"api-key")]
        headers = [(b"origin", origin.encode()), *announced]
        return Seen.of(self.run(call(self._apps[worker], "/models", method="OPTIONS", headers=headers)))

    async def _ask(self, worker: int, request: Request, body: Any = None) -> Seen:
        headers = [(b"api-key", value.encode()) for value in request.api_keys]
        headers += [(b"authorization", b"Bearer " + value.encode()) for value in request.bearers]
        if request.origin is not None:
            headers.append((b"origin", request.origin.encode()))
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        answer = await call(
            self._apps[worker],
            request.route.path,
            method=request.route.method,
            headers=headers,
            peer=None if request.address is None else (request.address, 50_000),
            body=b"" if body is None else json.dumps(body).encode(),
        )
        return Seen.of(answer)

    def _start_worker(self) -> tuple[KeyAuth, FastAPI]:
        auth = self.another_process()
        app = build_app(auth)
        self.run(auth.__aenter__())
        return auth, app
