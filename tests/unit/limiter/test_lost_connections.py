"""A connection that is lost after Redis carried out a call: the call is sent again, and nothing is charged twice."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import CreatedKey, KeyAuth, KeyAuthSettings, LimiterUnavailable
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.limiter.redis import connection
from fastapi_keyauth.testing import key_principal
from tests.helpers.cutting_proxy import CuttingProxy, cutting_proxy
from tests.helpers.keys import authenticate
from tests.helpers.processes import launch, stay_within_the_hour, wait_until
from tests.helpers.session import Servers
from tests.helpers.waiting import until

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 1000
OWNER_LIMIT = 5000


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A SQLite file: what is stored is not at stake here."""
    return f"sqlite+aiosqlite:///{tmp_path}/keyauth.db"


@pytest.fixture(params=["single server", "cluster"])
async def proxy(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[CuttingProxy]:
    stay_within_the_hour()
    async with cutting_proxy(servers.fresh_redis_url("valkey"), is_cluster=request.param == "cluster") as opened:
        yield opened


def build(database_url: str, redis_url: str, **settings: Any) -> KeyAuth:
    values = {
        "argon2_time_cost": 1,
        "argon2_memory_kib": 8,
        "units": ["tokens"],
        "on_limiter_outage": "deny",
        **settings,
    }
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=redis_url, **values))


async def create(auth: KeyAuth) -> CreatedKey:
    """Create a key with a limit of requests and tokens, and one of its owner, and use it once."""
    await auth.owners.set("alice", limits=[{"name": "all", "limit": OWNER_LIMIT, "per": "hour", "unit": "tokens"}])
    limits = [
        {"name": "hour", "limit": LIMIT, "per": "hour"},
        {"name": "tokens", "limit": LIMIT, "per": "hour", "unit": "tokens"},
    ]
    created = await auth.keys.create(owner_id="alice", name="k", limits=limits)
    await authenticate(auth, created.token)
    return created


async def used(auth: KeyAuth, created: CreatedKey) -> tuple[int, int, int]:
    """Return the used requests and tokens of the key, and tokens of its owner, after the request that reads them."""
    states = {state.name: state.limit - state.remaining for state in (await authenticate(auth, created.token)).limits}
    return states["hour"], states["tokens"], states["owner-all"]


async def test_a_reservation_whose_connection_is_lost_is_charged_once(database_url: str, proxy: CuttingProxy) -> None:
    async with build(database_url, proxy.url) as auth:
        created = await create(auth)
        proxy.cuts = 1
        await auth.reserve(key_principal(id=created.key.id), tokens=400)
        assert proxy.lost == 1
        assert await used(auth, created) == (2, 400, 400)


@pytest.mark.parametrize("actual", [131, 700])
async def test_a_settlement_whose_connection_is_lost_settles_once(
    database_url: str, proxy: CuttingProxy, actual: int
) -> None:
    async with build(database_url, proxy.url) as auth:
        created = await create(auth)
        hold = await auth.reserve(key_principal(id=created.key.id), tokens=400)
        proxy.cuts = 1
        await hold.settle(tokens=actual)
        assert proxy.lost == 1
        assert await used(auth, created) == (2, actual, actual)
        await hold.settle(tokens=1)
        assert await used(auth, created) == (3, actual, actual)


async def test_a_settlement_that_failed_can_be_repeated_and_settles_once(
    database_url: str, proxy: CuttingProxy
) -> None:
    """Both tries lose their answers, so the caller learns of a failure although it was settled."""
    async with build(database_url, proxy.url) as auth:
        created = await create(auth)
        hold = await auth.reserve(key_principal(id=created.key.id), tokens=400)
        proxy.cuts = 2
        with pytest.raises(LimiterUnavailable):
            await hold.settle(tokens=150)

        async def is_settled() -> bool:
            with suppress(LimiterUnavailable):
                await hold.settle(tokens=150)
            return hold.is_settled

        await until(is_settled)
        assert await used(auth, created) == (2, 150, 150)


async def test_a_request_of_several_units_whose_connection_is_lost_is_charged_once(
    database_url: str, proxy: CuttingProxy
) -> None:
    app = FastAPI()
    async with build(database_url, proxy.url) as auth:

        @app.get("/", dependencies=[Depends(auth.require(cost={"requests": 5, "tokens": 30}))])
        async def expensive() -> None: ...

        auth.install(app)
        created = await create(auth)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            for lost in (0, 1):
                proxy.cuts = lost
                assert (await client.get("/", headers={"Api-Key": created.token})).status_code == 200
        assert proxy.lost == 1
        assert await used(auth, created) == (12, 60, 60)


@pytest.mark.parametrize("is_carried_out", [True, False])
@pytest.mark.parametrize("lease_ms", [0, 100])
async def test_a_request_after_a_pause_whose_connection_is_lost_is_charged_and_billed_once(
    database_url: str, proxy: CuttingProxy, is_carried_out: bool, lease_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNSURE_AFTER_S", -1.0)
    async with build(database_url, proxy.url, lease_ms=lease_ms, block_spares_valid_keys=True) as auth:
        created = await create(auth)
        await authenticate(auth, created.token)  # from now on its row is current, so that the first call charges
        if is_carried_out:
            proxy.cuts = 1
        else:
            proxy.cuts_before = 1
        principal = await authenticate(auth, created.token)
        assert proxy.lost == 1
        assert [state.limit - state.remaining for state in principal.limits if state.name == "hour"] == [3]
        assert (await used(auth, created))[0] == 4
        assert await _billed(auth, created) == 4


@pytest.mark.parametrize("is_carried_out", [True, False])
async def test_the_usage_of_a_lease_that_is_returned_while_the_connection_is_lost_is_billed_once(
    database_url: str, proxy: CuttingProxy, is_carried_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNSURE_AFTER_S", -1.0)
    async with build(database_url, proxy.url, lease_ms=1000) as auth:
        created = await create(auth)
        counters = auth._parts.metrics.counters
        before = counters.lease_used
        requests = 1
        while counters.lease_used < before + 3:
            await authenticate(auth, created.token)
            requests += 1
        if is_carried_out:
            proxy.cuts = 1
        else:
            proxy.cuts_before = 1
        assert await _billed(auth, created) == requests  # leases are returned before usage is read
        assert proxy.lost == 1


@pytest.mark.parametrize("is_carried_out", [True, False])
async def test_the_usage_of_a_lease_is_not_counted_again_if_only_the_second_call_is_recorded(
    database_url: str, proxy: CuttingProxy, is_carried_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stalls while it connects again takes the new connection for one that was idle."""
    is_unsure = property(lambda _: proxy.lost > 0)
    monkeypatch.setattr(connection.Connection, "is_unsure", is_unsure)
    async with build(database_url, proxy.url, lease_ms=1000) as auth:
        created = await create(auth)
        counters = auth._parts.metrics.counters  # of all tests
        before, requests = counters.leases_granted, 1
        while counters.leases_granted == before:
            await authenticate(auth, created.token)
            requests += 1
        for _ in range(3):
            await authenticate(auth, created.token)
        if is_carried_out:
            proxy.cuts = 1
        else:
            proxy.cuts_before = 1
        billed = await _billed(auth, created)
        assert proxy.lost == 1
        assert billed == requests + (3 if is_carried_out else 0)


@pytest.mark.parametrize("policy", ["local", "deny"])
async def test_a_request_whose_call_times_out_is_counted_by_redis_and_with_local_by_the_worker_too(
    database_url: str, proxy: CuttingProxy, policy: str
) -> None:
    settings = {"on_limiter_outage": policy, "redis_timeout_s": 0.5, "block_spares_valid_keys": True}
    async with build(database_url, proxy.url, **settings) as auth:
        created = await create(auth)
        await authenticate(auth, created.token)  # from now on its row is current, so that the first call charges
        proxy.holds = 1
        if policy == "local":
            await authenticate(auth, created.token)
        else:
            with pytest.raises(LimiterUnavailable):
                await authenticate(auth, created.token)
        assert proxy.lost == 1

        async def is_over() -> bool:
            with suppress(LimiterUnavailable):
                return await _billed(auth, created) > 0
            return False

        await until(is_over)
        assert await _billed(auth, created) == 3  # Redis has carried out the call
        [hour] = await auth.keys.usage(created.key.id, hours=1)
        assert hour.admitted == (4 if policy == "local" else 3)


async def _billed(auth: KeyAuth, created: CreatedKey) -> int:
    """Return the requests in the ledger."""
    counts = await auth._parts.limiter.read_usage([UsageOf(created.key.id, created.key.owner_id, None)], 0)
    return sum(count.units for count in counts if count.unit == "requests")


WORKER = """
import asyncio, os, signal, sys
from fastapi_keyauth.testing import key_principal
from tests.unit.limiter.test_lost_connections import build

async def main(database_url, redis_url, key_id):
    async with build(database_url, redis_url) as auth:
        async with auth.reserve(key_principal(id=key_id), tokens=400):
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_hold_of_a_killed_worker_stays_charged(database_url: str, servers: Servers, tmp_path: Path) -> None:
    stay_within_the_hour()
    redis_url = servers.fresh_redis_url("valkey")
    async with build(database_url, redis_url) as auth:
        created = await create(auth)
        arguments = [sys.executable, "-c", WORKER, database_url, redis_url, created.key.id]
        worker = launch(arguments, tmp_path / "log", death_signal=signal.SIGKILL, cwd=ROOT)
        wait_until(lambda: worker.poll() is not None, timeout_s=60)
        assert worker.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert await used(auth, created) == (2, 400, 400)
