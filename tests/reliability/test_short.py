"""A short version of ``make soak``: each fault once, with real servers and workers, and the same judgement."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reliability import campaign, soak
from reliability.faults import RedisFaults, postgres_faults
from reliability.ledger import HOUR_S
from reliability.pace import SHORT
from reliability.workers import KILLED, STOPPED
from tests.helpers.session import Servers

# What a busy machine does to times must not fail a test; `make soak` judges them, and these only say that it went on.
HANG_S = 30.0
TIMES = ("Redis away", "Redis back")


@pytest.fixture
def postgres_url(servers: Servers) -> Iterator[str]:
    with servers.fresh_postgres_url() as url:
        yield url


@pytest.mark.timeout(240)  # processes start and end, which takes its time on a busy machine
async def test_every_promise_is_kept_through_each_fault_of_redis(
    servers: Servers, postgres_url: str, tmp_path: Path
) -> None:
    redis = servers.start("valkey")
    hour = time.time() // HOUR_S
    workers = {"local": 1, "deny": 1}
    found = await campaign.run(redis, postgres_url, tmp_path, 1, workers, 1, say=lambda _: None, pace=SHORT)
    redis.close()
    for side in found.sides:
        assert (side.violations, side.over_cap, side.uncounted) == ({}, 0, 0), side.examples
        assert side.counted > 0 or time.time() // HOUR_S > hour  # only the present hour can be read
        assert side.ended_keys == len(found.rows)  # two for each of its faults
    for row in found.rows:
        assert row.times == 1
        assert row.requests > 0
        assert row.unanswered == 0
        assert max(row.slowest_s, row.recovery_worst_s) < HANG_S


@pytest.mark.timeout(240)  # processes start and end, which takes its time on a busy machine
async def test_every_promise_is_kept_through_ends_of_postgres_and_of_workers(servers: Servers, tmp_path: Path) -> None:
    redis, postgres = servers.start("valkey"), servers.start("postgres")
    amid_an_outage = RedisFaults(redis, keeps_data=False).with_a_worker()
    cards: list[soak.Card] = [*postgres_faults(postgres), amid_an_outage, KILLED, STOPPED]
    half = await soak.run_half(
        "deny", 0, (redis, postgres), tmp_path / "soak", random.Random(1), workers=2, cards=cards, pace=SHORT
    )
    redis.close()
    postgres.close()
    broken = [check for check in half.checks if not check.holds and not check.promise.startswith(TIMES)]
    assert broken == [], half.examples
    assert sorted(row.fault for row in half.faults) == sorted(
        card if isinstance(card, str) else card.name for card in cards
    )
