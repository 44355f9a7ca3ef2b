"""The comparison with the units in Redis finds each request that was admitted without being counted."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.limiter.redis import scripts
from reliability.counts import Counted, compare_on
from reliability.ledger import Ledger, OwnerRecord
from tests.conftest import Stack
from tests.helpers.fleet import Answer
from tests.helpers.processes import stay_within_the_hour

pytestmark = pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)
LIMIT = 1000
ADMITTED = 40


async def spend(make_auth: Callable[..., KeyAuth], ledger: Ledger) -> Counted:
    """Use a key with a limit, and a key of an owner with a limit, and compare."""
    stay_within_the_hour()
    app = FastAPI()
    async with make_auth(lease_ms=1000, default_hourly_limit=None) as auth:

        @app.get("/", dependencies=[Depends(auth.require_key)])
        async def use() -> None: ...

        auth.install(app)
        counters = auth._parts.metrics.counters  # of all tests
        before = counters.leases_granted
        await auth.owners.set("project", limits=[{"name": "all", "limit": LIMIT, "per": "hour"}])
        owner = OwnerRecord("project", LIMIT, time.monotonic())
        ledger.owners.append(owner)
        own = await auth.keys.create(owner_id="alice", name="k", hourly_limit=LIMIT)
        shared = await auth.keys.create(owner_id="project", name="k")
        credentials = [
            ledger.made(own.key.id, own.token, LIMIT, time.monotonic()),
            ledger.made(shared.key.id, shared.token, None, time.monotonic(), owner),
        ]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            for credential in credentials:
                for _ in range(ADMITTED):
                    began_at = time.monotonic()
                    found = await client.get("/", headers={"api-key": credential.token})
                    answer = Answer(began_at, time.monotonic(), 1, found.status_code, None, found.headers)
                    assert answer.status == 200
                    ledger.judge(answer, credential)
        assert counters.leases_granted > before + 1  # of both keys
        await auth._parts.limiter.read_usage([], 0)  # returns the leases
        return await compare_on(auth, ledger)


async def test_redis_has_counted_each_admitted_request_once(make_auth: Callable[..., KeyAuth], stack: Stack) -> None:
    counted = await spend(make_auth, Ledger("deny", may_refuse=False))
    assert counted == Counted(units=2 * ADMITTED, admitted=2 * ADMITTED, uncounted=0)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        pytest.param("take", "key[3] + 1, key[4] + 1", "key[3], key[4] + 1", id="a request is not charged to its key"),
        pytest.param(
            "take", "local used = owner_units[at] + ", "local used = owner_units[at] + 0 * ", id="to its owner"
        ),
        pytest.param("take_others", "list[at + 2] - unused", "list[at + 2] - used - unused", id="used units return"),
        pytest.param(
            "take_others", "add(i, limit, units * limit.cost", "add(i, limit, 0 * limit.cost", id="a lease is free"
        ),
    ],
)
async def test_a_request_that_is_not_counted_is_found(
    make_auth: Callable[..., KeyAuth], stack: Stack, monkeypatch: pytest.MonkeyPatch, file: str, right: str, wrong: str
) -> None:
    read = scripts._read_lua  # the scripts have no public names; each is broken on purpose

    def read_broken(name: str) -> bytes:
        source = read(name)
        assert name != file or source.count(right.encode()) > 0
        return source.replace(right.encode(), wrong.encode()) if name == file else source

    monkeypatch.setattr(scripts, "_read_lua", read_broken)
    counted = await spend(make_auth, Ledger("deny", may_refuse=False))
    assert counted.uncounted > 0
    assert counted.uncounted == counted.admitted - counted.units


async def test_requests_before_redis_lost_its_data_are_not_expected(
    make_auth: Callable[..., KeyAuth], stack: Stack
) -> None:
    ledger = Ledger("deny", may_refuse=False)
    await spend(make_auth, ledger)
    record, _ = ledger.limited()
    (hour,) = record.began_at
    assert ledger.uncounted(record, hour, 0) == ADMITTED
    ledger.data_lost_at.append(record.began_at[hour][9])
    assert ledger.uncounted(record, hour, 0) < ADMITTED - 9
    ledger.data_lost_at.append(time.monotonic())
    assert ledger.uncounted(record, hour, 0) == 0
