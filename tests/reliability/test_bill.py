"""The bill of a day equals the clients' own count, although workers are killed at random.

Two differences are allowed: a request without an answer may have been admitted, and a worker that is killed takes
with it what its leases have admitted and not returned, which is never billed.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from tests.helpers.processes import kill_tree
from tests.helpers.session import Servers
from tests.helpers.shared_clock import SharedClock
from tests.helpers.waiting import until
from tests.helpers.workers import Workers

WORKERS = 4
CLIENTS = 6
KILLS = 3  # the supervisor replaces them in its own time
ANSWERS_BETWEEN_KILLS = 60
MORNING = datetime(2026, 11, 10, 6, tzinfo=UTC)
HANG_S = 120.0
REDIS_TIMEOUT_S = "60"  # a call that fails on a busy machine might have been executed, and be counted twice
UNRETURNED_S = 1.0
"""Seconds before a kill whose answers may be missing from the bill: ten times as long as a lease."""


class Day:
    """A day of traffic: what the clients saw, by key.

    Attributes:
        admitted: Requests that were answered with 200.
        lost: Requests without an answer, because their worker was killed.
        workers: Process ids, with the number of answers of each.
        killed: Process ids, with when they were killed, on the monotonic clock.
    """

    def __init__(self, base_url: str, tokens: dict[str, str]) -> None:
        self._base_url = base_url
        self._tokens = tokens
        self.admitted: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.workers: Counter[int] = Counter()
        self.killed: dict[int, float] = {}
        self.is_over = False
        self._answers: list[tuple[int, float, str]] = []

    def unreturned(self) -> Counter[str]:
        """Count the answers that a lease of a killed worker may have admitted shortly before, by key."""
        return Counter(
            name for pid, at, name in self._answers if at >= self.killed.get(pid, float("inf")) - UNRETURNED_S
        )

    async def send(self, random_: random.Random) -> None:
        """Send requests with random keys until the day is over."""
        names = list(self._tokens)
        while not self.is_over:
            # A connection stays with its worker: a new one gives each of them a chance.
            async with httpx.AsyncClient(base_url=self._base_url, timeout=HANG_S) as client:
                for _ in range(10):
                    name = random_.choice(names)
                    try:
                        answer = await client.get("/models", headers={"api-key": self._tokens[name]})
                    except httpx.TransportError:
                        self.lost[name] += 1
                        break
                    assert answer.status_code == 200, answer.text
                    self.admitted[name] += 1
                    worker = int(answer.headers["worker"])
                    self.workers[worker] += 1
                    self._answers.append((worker, time.monotonic(), name))


@pytest.fixture
def postgres_url(servers: Servers) -> Iterator[str]:
    with servers.fresh_postgres_url(has_tables=True) as url:
        yield url


@pytest.mark.timeout(240)  # processes start and end, which takes its time on a busy machine
async def test_the_bill_equals_the_clients_count_although_workers_are_killed(
    servers: Servers, postgres_url: str, start_workers: Callable[..., Workers], tmp_path: Path
) -> None:
    clock = SharedClock(tmp_path / "clock")
    clock.set(MORNING.timestamp())
    redis_url = servers.fresh_redis_url("valkey")
    values = {"database_url": postgres_url, "redis_url": redis_url, "redis_timeout_s": REDIS_TIMEOUT_S}
    cheap = {"argon2_memory_kib": "8", "argon2_time_cost": "1", "default_hourly_limit": "1000000"}
    env = {f"KEYAUTH_{name.upper()}": value for name, value in {**values, **cheap}.items()}
    settings = KeyAuthSettings(_env_file=None, **values, **cheap)
    async with KeyAuth(settings, clock=clock).connect() as auth:
        made = [await auth.keys.create(owner_id=f"o{number % 2}", name="k") for number in range(5)]
        env |= {"TEST_CLOCK": str(clock.file)}
        group = await asyncio.to_thread(start_workers, "tests.helpers.workers_app:app", WORKERS, env)
        day = Day(group.base_url, {created.key.id: created.token for created in made})
        await _spend(day, clock)
        clock.set((MORNING + timedelta(hours=19)).timestamp())  # an hour after midnight
        await until(lambda: _is_closed(auth), HANG_S)
        await asyncio.to_thread(kill_tree, group.process)
        report = await auth.usage.report(MORNING.date(), MORNING.date() + timedelta(days=1), "key")
        billed = {str(item.key_id): item.units["requests"] for item in report}
    assert billed.keys() == day.admitted.keys()
    unreturned = day.unreturned()
    for key_id, units in billed.items():
        admitted = day.admitted[key_id]
        assert admitted - unreturned[key_id] <= units <= admitted + day.lost[key_id], (day.lost, group.log()[-4000:])


async def _spend(day: Day, clock: SharedClock) -> None:
    random_ = random.Random(7)
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(day.send(random.Random(number)))
        await until(lambda: len(day.workers) == WORKERS, HANG_S)
        for number in range(1, KILLS + 1):
            enough = day.admitted.total() + ANSWERS_BETWEEN_KILLS
            await until(lambda enough=enough: day.admitted.total() >= enough, HANG_S)  # type: ignore[misc]  # a default
            victim = random_.choice([pid for pid in sorted(day.workers) if pid not in day.killed])
            day.killed[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            clock.set((MORNING + timedelta(hours=number)).timestamp())
        day.is_over = True


async def _is_closed(auth: KeyAuth) -> bool:
    items = await auth.usage.report(MORNING.date(), MORNING.date() + timedelta(days=1))
    return bool(items) and all(item.closed for item in items)  # none before the first write
