"""Four workers on Valkey and PostgreSQL keep the promises that one process keeps."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from tests.example.demo import Demo
from tests.helpers.fleet import Connection
from tests.helpers.processes import stay_within_the_hour
from tests.helpers.session import Servers
from tests.helpers.workers import Workers

WORKERS = 4
CLIENTS = 100
OPEN_DEADLINE_S = 60.0
ENOUGH = 500


class Crowd:
    """Many clients with one address, each with its own connection; they reach every worker."""

    def __init__(self, connections: Sequence[Connection], address: str) -> None:
        self._connections = connections
        self._address = address

    async def statuses(self, token: str, count: int) -> Counter[int]:
        """Return the statuses of this many concurrent requests."""
        left = iter(range(count))

        async def keep_asking(client: int) -> list[int]:
            return [await self.ask(token, client) for _ in left]

        answers = await asyncio.gather(*map(keep_asking, range(CLIENTS)))
        return Counter(status for some in answers for status in some)

    async def ask(self, token: str, client: int) -> int:
        """Return the status of one request of a client without other running requests."""
        headers = {"api-key": token, "x-forwarded-for": self._address}
        return (await self._connections[client].ask("GET", "/v1/models", headers)).status


@pytest.fixture(scope="module")
def demo(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with servers.fresh_postgres_url() as database_url:
        running = Demo(
            tmp_path_factory.mktemp("demo"),
            WORKERS,
            KEYAUTH_DATABASE_URL=database_url,
            KEYAUTH_REDIS_URL=servers.fresh_redis_url("valkey"),
            KEYAUTH_REDIS_TIMEOUT_S="10",  # a busy machine is no outage
            KEYAUTH_DEFAULT_HOURLY_LIMIT="1000000",
            KEYAUTH_TRUSTED_PROXIES="127.0.0.1",  # so that a test may come from an address of its own
        )
        try:
            yield running
            assert running.press_ctrl_c() == 0
            assert running.log().count("Application shutdown complete.") == WORKERS
            assert "Traceback" not in running.log()
        finally:
            running.close()


@pytest.fixture
async def user(demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the demo user, logged in, whose team has the larger plan."""
    async with httpx.AsyncClient(base_url=demo.url, timeout=30) as client:
        answer = await client.post("/login", json={"email": demo.email, "password": demo.password})
        client.headers["Authorization"] = f"Bearer {answer.json()['session_token']}"
        (team,) = (await client.get("/teams")).json()
        assert (await client.put(f"/teams/{team['id']}/plan", json={"plan": "pro"})).status_code == 200
        yield client


@asynccontextmanager
async def crowd_at_every_worker(demo: Demo, address: str) -> AsyncIterator[Crowd]:
    """Open connections until all workers have some: which worker accepts a connection is random."""
    deadline = time.monotonic() + OPEN_DEADLINE_S
    while time.monotonic() < deadline:
        async with AsyncExitStack() as cleanup:
            connections = await asyncio.gather(*(Connection.open(demo.url) for _ in range(CLIENTS)))
            for connection in connections:
                cleanup.push_async_callback(connection.close)
            await asyncio.gather(*(connection.ask("GET", "/health") for connection in connections))
            if len(demo.connected_workers()) == WORKERS:
                yield Crowd(connections, address)
                return
    raise TimeoutError("no connection to some worker")


async def test_limit_of_100_admits_100_of_400_requests(demo: Demo, user: httpx.AsyncClient) -> None:
    created = await user.post("/api-keys", json={"name": "capped", "hourly_limit": 100})
    stay_within_the_hour()
    async with crowd_at_every_worker(demo, "203.0.113.1") as crowd:
        assert await crowd.statuses(created.json()["token"], 400) == {200: 100, 429: 300}


async def test_key_revoked_through_one_worker_is_refused_by_all(demo: Demo, user: httpx.AsyncClient) -> None:
    key = (await user.post("/api-keys", json={"name": "doomed"})).json()
    revoked_at = math.inf
    before: list[int] = []
    after: list[int] = []
    is_in_use = asyncio.Event()

    async def hammer(crowd: Crowd, client: int) -> None:
        while len(after) < ENOUGH:
            started_at = time.monotonic()
            status = await crowd.ask(key["token"], client)
            (after if started_at > revoked_at else before).append(status)
            if len(before) >= ENOUGH:
                is_in_use.set()

    async with (
        asyncio.timeout(120),
        crowd_at_every_worker(demo, "203.0.113.2") as crowd,
        asyncio.TaskGroup() as group,
    ):
        for client in range(CLIENTS):
            group.create_task(hammer(crowd, client))
        await is_in_use.wait()
        admitted = set(before)
        revoked = await user.delete(f"/api-keys/{key['id']}")
        revoked_at = time.monotonic()
    assert (admitted, revoked.status_code) == ({200}, 204)
    assert set(after) == {401}


@pytest.mark.usefixtures("user")
async def test_failed_attempts_are_counted_over_all_workers(demo: Demo) -> None:
    async with crowd_at_every_worker(demo, "203.0.113.3") as crowd:
        assert await crowd.statuses("guess", 60) == {401: 10, 429: 50}
        assert await crowd.statuses(demo.key, 200) == {429: 200}, "blocked for some workers alone"
    async with crowd_at_every_worker(demo, "203.0.113.4") as crowd:
        assert await crowd.statuses(demo.key, 200) == {200: 200}


def test_workers_that_start_together_create_the_tables_once(
    database_url: str, start_workers: Callable[..., Workers]
) -> None:
    workers = start_workers("example_app.app:app", WORKERS, {"KEYAUTH_DATABASE_URL": database_url})
    account = {"email": "alice@example.com", "password": "correct horse battery"}
    assert httpx.post(f"{workers.base_url}/signup", json=account, timeout=30).status_code == 201
    assert "Traceback" not in workers.log()
