"""Streams and WebSockets on four workers: exactly those whose credentials lost their rights end, and in time."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import websockets

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.http.in_flight import check_after_s
from tests.helpers.session import Servers
from tests.helpers.workers import Workers

WORKERS = 4
OF_EACH_KIND = int(os.environ.get("TEST_STREAMS", "10"))
"""Streams, and as many WebSockets, for each of four keys."""
PROMISED_S = 1.0
SLACK_S = 2.0
"""What a busy machine may add."""
EXPIRES_IN_S = 3.0
OPEN_DEADLINE_S = 40.0
NAMES = ("kept", "revoked", "suspended", "expired")
OVER = "all have ended"
"""A mark among the commands: later ones are not counted."""

CountChecks = Callable[[], Counter[str]]
"""Returns the number of checks of each worker since the test began, by its connection to Redis."""


@dataclass
class Long:
    """A stream or WebSocket: the worker that serves it, and how and when it ended."""

    worker: int = 0
    reason: str = ""
    ended_at: float | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)


async def _stream(port: int, token: str, seen: Long) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /events HTTP/1.1\r\nhost: test\r\napi-key: {token}\r\n\r\n".encode())
        await reader.readuntil(b"data: ")
        seen.worker = int(await reader.readuntil(b"\n"))
        seen.begun.set()
        rest = await reader.read()
        while part := await reader.read():
            rest += part
        seen.ended_at = time.monotonic()
        assert not rest.endswith(b"0\r\n\r\n"), "the response is complete"
        seen.reason = rest.partition(b'"code": "')[2].partition(b'"')[0].decode()
    finally:
        writer.close()


async def _socket(port: int, token: str, seen: Long) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/socket", additional_headers={"api-key": token}) as socket:
        seen.worker = int(await socket.recv())
        seen.begun.set()
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            seen.ended_at = time.monotonic()
            seen.reason = closed.rcvd.reason if closed.rcvd is not None and closed.rcvd.code == 1008 else str(closed)


@pytest.fixture
def values(servers: Servers) -> Iterator[dict[str, Any]]:
    """Settings of all processes."""
    with servers.fresh_postgres_url() as database_url:
        redis_url = servers.fresh_redis_url("valkey")
        yield {"database_url": database_url, "redis_url": redis_url, "redis_timeout_s": 10}


@pytest.fixture
def count_checks(values: dict[str, Any]) -> Iterator[CountChecks]:
    """Return a function that counts the checks of each worker.

    Other scripts, such as those that read usage, are called independently of open requests.
    """
    source = files("fastapi_keyauth").joinpath("limiter/redis/lua/generations.lua").read_bytes()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()

    def count() -> Counter[str]:
        client.echo(OVER)
        commands = takewhile(lambda found: OVER not in found["command"], monitor.listen())
        # A worker has one connection for these calls. A script that Redis does not know is sent again as EVAL.
        return Counter(
            f"{found['client_address']}:{found['client_port']}"
            for found in commands
            if found["command"].startswith(f"EVALSHA {sha} ")
        )

    with redis.Redis.from_url(values["redis_url"]) as client, client.monitor() as monitor:
        yield count


async def test_exactly_the_right_ones_end_in_time(
    values: dict[str, Any], start_workers: Callable[..., Workers], count_checks: CountChecks
) -> None:
    auth = KeyAuth(KeyAuthSettings(_env_file=None, **values))
    async with auth:
        keys = {name: await auth.keys.create(owner_id=name, name=name) for name in NAMES}
        env = {f"KEYAUTH_{name.upper()}": str(value) for name, value in values.items()}
        workers = start_workers("tests.helpers.long_running_app:app", WORKERS, env)
        port = urlsplit(workers.base_url).port
        assert port is not None
        open_ones: dict[str, list[Long]] = {name: [] for name in NAMES}
        async with asyncio.TaskGroup() as group:
            opened_at = time.monotonic()  # before the first request
            tasks = []
            for name in NAMES * OF_EACH_KIND:
                for kind in (_stream, _socket):
                    seen = Long()
                    open_ones[name].append(seen)
                    tasks.append(group.create_task(kind(port, keys[name].token, seen)))
            async with asyncio.timeout(OPEN_DEADLINE_S):
                await asyncio.gather(*(seen.begun.wait() for some in open_ones.values() for seen in some))
            # The system distributes connections, and may leave a worker out on a busy machine.
            by_worker = Counter(seen.worker for some in open_ones.values() for seen in some)
            assert len(by_worker) > 1, by_worker
            expires_at = datetime.now(UTC) + timedelta(seconds=EXPIRES_IN_S)
            await auth.keys.update(keys["expired"].key.id, expires_at=expires_at)
            await auth.keys.revoke(keys["revoked"].key.id)
            revoked_at = time.monotonic()
            await auth.owners.suspend("suspended")
            suspended_at = time.monotonic()
            expired_at = time.monotonic() + (expires_at - datetime.now(UTC)).total_seconds()
            await _all_end(open_ones["revoked"], revoked_at, "revoked_api_key")
            await _all_end(open_ones["suspended"], suspended_at, "owner_suspended")
            await _all_end(open_ones["expired"], expired_at, "expired_api_key")
            checks, open_s = count_checks(), time.monotonic() - opened_at
            assert all(seen.ended_at is None for seen in open_ones["kept"])
            assert all(seen.ended_at > expired_at for seen in open_ones["expired"] if seen.ended_at is not None)
            for task in tasks:
                task.cancel()
        # A worker's first check is due this long after its first request began, and each further one this long after
        # the one before. A busy machine makes them later, and fewer.
        most = int(open_s / check_after_s(PROMISED_S, 2 * OF_EACH_KIND))
        ended_by = {seen.worker for name in NAMES[1:] for seen in open_ones[name]}
        print(f"checks of each worker in {open_s:.2f} s: {sorted(checks.values())}, at most {most}")
        assert len(ended_by) <= len(checks) <= WORKERS
        assert max(checks.values()) <= most
    log = workers.log()
    assert "Traceback" not in log
    assert "ERROR" not in log


async def _all_end(ones: list[Long], since: float, reason: str) -> None:
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + EXPIRES_IN_S + OPEN_DEADLINE_S):
        while any(seen.ended_at is None for seen in ones):  # noqa: ASYNC110  # their tasks note it
            await asyncio.sleep(0.05)
    assert Counter(seen.reason for seen in ones) == {reason: 2 * OF_EACH_KIND}
    latest = max(seen.ended_at - since for seen in ones if seen.ended_at is not None)
    print(f"{reason}: all {len(ones)} ended {latest:.2f} s later at the latest")
    assert latest < PROMISED_S + SLACK_S
