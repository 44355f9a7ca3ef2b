"""A real cluster: limits, blocks and revocation are exact while slots move and while primaries fail over."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from fastapi_keyauth import ChangePending, CreatedKey, KeyAuth, LimiterUnavailable, SetupError
from fastapi_keyauth.limiter import ClusterLimiter, Verdict
from fastapi_keyauth.limiter import failover as outage
from fastapi_keyauth.limiter.protocol import Policy
from fastapi_keyauth.limiter.redis import connection
from fastapi_keyauth.limiter.redis.encoding import owner_tag
from tests.helpers.acl import service_commands
from tests.helpers.cluster_stage import HANGS_S, loaded, outcome, until, worker
from tests.helpers.groups import HASTY_MS, Cluster
from tests.helpers.limits import question
from tests.helpers.processes import stay_within_the_hour, wait_until
from tests.helpers.servers import PASSWORD, RedisServer

if TYPE_CHECKING:
    from tests.helpers.session import Servers

pytestmark = pytest.mark.xdist_group("cluster")
MakeLimiter = Callable[..., ClusterLimiter]


@pytest.fixture
def cluster(servers: Servers) -> Cluster:
    """The cluster of the session, complete and empty."""
    found = servers.cluster()
    found.wait_until_whole()
    return found


@pytest.fixture
async def make_limiter(cluster: Cluster) -> AsyncIterator[MakeLimiter]:
    """Build started limiters; each is a worker."""
    made: list[ClusterLimiter] = []

    def make() -> ClusterLimiter:
        made.append(ClusterLimiter(cluster.url, Policy(3, 60_000, 60_000), "t", 5.0))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()


_numbers = itertools.count()


def name_of(created: CreatedKey) -> str:
    """The hash of a key, in the slot of its owner."""
    return f"keyauth:ka:{{{owner_tag(created.key.owner_id)}}}:{created.key.id}"


async def make_key_at(server: RedisServer, auth: KeyAuth, cluster: Cluster) -> CreatedKey:
    """A key of an owner in a slot of that primary, which every third one is by chance."""
    while True:
        owner_id = f"owner-{next(_numbers)}"
        key = await auth.keys.create(owner_id=owner_id, name="k")
        if cluster.owner(name_of(key)) is server:
            return key


def admitted(decisions: list[object]) -> int:
    return sum(getattr(decision, "verdict", None) is Verdict.ADMITTED for decision in decisions)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
async def test_workers_share_the_limits_of_keys_on_all_nodes(
    make_limiter: MakeLimiter, algorithm: Literal["fixed_window", "sliding_window"]
) -> None:
    workers = [make_limiter() for _ in range(3)]
    questions = [question(f"k{number % 7}", 20, bucket=f"a{number % 5}", algorithm=algorithm) for number in range(420)]
    seen = await asyncio.gather(*(workers[number % 3].check(each) for number, each in enumerate(questions)))
    assert admitted(list(seen)) == 7 * 20
    assert {decision.verdict for decision in seen} == {Verdict.ADMITTED, Verdict.LIMITED}


async def test_blocked_requests_take_no_unit_not_even_for_a_moment(make_limiter: MakeLimiter) -> None:
    """If a unit were charged and returned, another request could be refused meanwhile."""
    here, there = make_limiter(), make_limiter()
    for _ in range(3):
        await here.record_failure("bad")
    questions = [question("k", 50, bucket="bad" if number % 2 else "good") for number in range(100)]
    seen = await asyncio.gather(*((here if number % 3 else there).check(each) for number, each in enumerate(questions)))
    assert {decision.verdict for decision in seen[1::2]} == {Verdict.BLOCKED}
    assert {decision.verdict for decision in seen[::2]} == {Verdict.ADMITTED}
    assert (await here.check(question("k", 50))).verdict is Verdict.LIMITED


async def test_limits_and_blocks_are_exact_while_their_slots_move(cluster: Cluster, make_limiter: MakeLimiter) -> None:
    workers = [make_limiter(), make_limiter()]
    seen: list[object] = []
    failed: list[int | None] = []

    async def keep_taking(number: int) -> None:
        while True:
            limiter = workers[number % 2]
            seen.append(await limiter.check(question("moving", 400, bucket="wanderer")))
            if len(seen) % 10 == 0:
                workers[0]._known_blocks.clear()  # so that each check reaches the cluster
                failed.append(await limiter.record_failure("guesser"))

    step = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def pause() -> None:  # called in a thread: until a few more questions have been answered
        before = len(seen)
        wait_until(lambda: len(seen) > before + 12, timeout_s=10)
        loop.call_soon_threadsafe(step.release)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep_taking(number)) for number in range(8)]
        for name in ("t:{moving}", "t:{wanderer}", "t:{guesser}", "t:{moving}"):
            await asyncio.to_thread(cluster.move_slot, name, pause)
        await until(lambda: admitted(seen) >= 400 and len(seen) > 500)
        for task in tasks:
            task.cancel()
    assert admitted(seen) == 400
    assert (failed.count(None), failed.count(0)) == (2, 1)
    assert {getattr(decision, "verdict", None) for decision in seen} == {Verdict.ADMITTED, Verdict.LIMITED}


async def test_a_call_after_a_pause_is_answered_before_its_slot_has_moved(
    cluster: Cluster, make_limiter: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node refuses a call with a name that does not exist, as that of a record, until the whole slot has moved."""
    monkeypatch.setattr(connection, "UNSURE_AFTER_S", -1.0)
    limiter = make_limiter()
    asked = question("paused", 400)
    key, _ = limiter._holder_names(asked.key_id, asked.owner_id)
    await limiter.check(asked)
    seen = []

    def take(loop: asyncio.AbstractEventLoop) -> None:
        seen.append(asyncio.run_coroutine_threadsafe(limiter.check(asked), loop).result(timeout=10))

    moved = itertools.count()
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(cluster.move_slot, key, lambda: None if next(moved) else take(loop))
    assert [decision.remaining for decision in seen] == [398]


async def test_a_change_takes_effect_immediately_while_the_slot_moves(cluster: Cluster, tmp_path: Path) -> None:
    async with worker(tmp_path, cluster.url) as here, worker(tmp_path, cluster.url) as there:
        for _ in range(3):
            created = await here.keys.create(owner_id="a", name="k")
            async with loaded(*[partial(outcome, auth, created.token) for auth in (here, there)] * 2) as load:
                name = name_of(created)
                await until(lambda: load.seen["admitted"] > 20)
                await asyncio.gather(
                    asyncio.to_thread(cluster.move_slot, name, lambda: None), here.keys.revoke(created.key.id)
                )
                assert [await outcome(auth, created.token) for auth in (here, there)] == ["RevokedApiKey"] * 2
            assert set(load.seen) <= {"admitted", "RevokedApiKey"}


@pytest.mark.parametrize("how", ["requested", "killed"])
async def test_a_failover_under_load_admits_nothing_wrong(
    cluster: Cluster, tmp_path: Path, how: str, record_property: Callable[[str, object], None]
) -> None:
    settings = {"on_limiter_outage": "deny", "default_hourly_limit": 1000}
    stay_within_the_hour()
    async with worker(tmp_path, cluster.url, **settings) as here, worker(tmp_path, cluster.url, **settings) as there:
        victim, replica = cluster.pair()
        keys = [await here.keys.create(owner_id=f"a{number}", name="k", hourly_limit=300) for number in range(60)]
        owned = [key for key in keys if cluster.owner(name_of(key)) is victim]
        limited, revoked = owned[0], owned[1]
        counts = {key.token: 0 for key in (limited, revoked)}

        async def counted(auth: KeyAuth, token: str) -> str:
            result = await outcome(auth, token)
            counts[token] += result == "admitted"
            return result

        load_calls = [partial(counted, auth, key.token) for auth in (here, there) for key in (limited, revoked)]
        with cluster.hasty(), restarted(victim):
            async with loaded(*load_calls) as load:
                await until(lambda: counts[limited.token] > 50)
                if how == "killed":
                    victim.kill()
                    await until(lambda: load.seen["LimiterUnavailable"] > 0)
                else:
                    cluster.ask(replica, "CLUSTER", "FAILOVER")
                    await until(lambda: asyncio.to_thread(cluster.is_primary, replica))
                for auth in (here, there):
                    await until(partial(_takes_changes, auth))
                await here.keys.revoke(revoked.key.id)
                assert [await outcome(auth, revoked.token) for auth in (here, there)] == ["RevokedApiKey"] * 2
                await until(lambda: load.seen["RateLimitExceeded"] > 0)
    # Calls that were cut off may have been counted, and perhaps twice; and each worker may have lost a lease.
    assert 300 >= counts[limited.token] >= 300 - 4 - 2 * (300 // 16)
    assert how == "killed" or not load.seen["LimiterUnavailable"]
    assert set(load.seen) <= {"admitted", "LimiterUnavailable", "RateLimitExceeded", "RevokedApiKey"}
    assert load.slowest_s < HANGS_S
    record_property("outage_s", load.outage_s)


async def test_a_failover_that_lost_a_revocation_does_not_revive_the_key(cluster: Cluster, tmp_path: Path) -> None:
    """The replica takes over with the generation that workers have cached, and later the first primary does too."""
    async with worker(tmp_path, cluster.url) as here, worker(tmp_path, cluster.url) as there:
        primary, replica = cluster.pair()
        created = await make_key_at(primary, here, cluster)
        name = name_of(created)
        for _ in range(3):
            assert await outcome(there, created.token) == "admitted"
        known = cluster.ask(primary, "HGET", name, "g")
        cluster.ask(replica, "CONFIG", "SET", "masterauth", "wrong")
        try:
            cluster.ask(primary, "CLIENT", "KILL", "TYPE", "replica")
            await here.keys.revoke(created.key.id)
            assert cluster.ask(primary, "HGET", name, "g") != known
            cluster.ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
            await asyncio.to_thread(cluster.wait_until_whole)
            assert cluster.ask(replica, "HGET", name, "g") == known
            assert await outcome(there, created.token) == "RevokedApiKey"
            # And back: the old primary has the old generation now, over connections that were never cut.
            cluster.ask(replica, "CONFIG", "SET", "masterauth", PASSWORD)
            cluster.ask(primary, "CLUSTER", "FAILOVER", "TAKEOVER")
            await asyncio.to_thread(cluster.wait_until_whole)
            assert cluster.ask(primary, "HGET", name, "g") == known
            assert await outcome(here, created.token) == "RevokedApiKey"
        finally:
            cluster.ask(replica, "CONFIG", "SET", "masterauth", PASSWORD)


async def test_generations_of_a_primary_that_hung_are_invalid(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without requests has dropped its connection, too."""
    # The failover is hastier than docs/how-to/redis.md allows it to be, so the worker has to probe more often.
    monkeypatch.setattr(outage, "WATCH_EVERY_S", outage.WATCH_EVERY_S * HASTY_MS / 2000)
    async with worker(tmp_path, cluster.url) as here, worker(tmp_path, cluster.url) as idle:
        victim, _ = cluster.pair()
        created = await make_key_at(victim, here, cluster)
        for _ in range(3):
            assert await outcome(idle, created.token) == "admitted"
        with cluster.hasty():
            victim.process.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: idle._parts.limiter._breaker.is_open)  # type: ignore[attr-defined]  # of the FailoverLimiter
                await until(lambda: asyncio.to_thread(lambda: len(cluster.primaries(besides=victim)) == 3))
                await until(lambda: _takes_changes(here))
                await until(lambda: _revokes(here, created.key.id))  # the nodes may agree a moment later
                await until(lambda: not idle._parts.limiter._breaker.is_open)  # type: ignore[attr-defined]  # of the FailoverLimiter
            finally:
                victim.cont()
            assert await outcome(idle, created.token) == "RevokedApiKey"


@contextmanager
def restarted(server: RedisServer) -> Iterator[None]:
    """Ensure that the server runs after the block."""
    try:
        yield
    finally:
        if server.process.poll() is not None:
            server.restart()


async def _takes_changes(auth: KeyAuth) -> bool:
    try:
        await auth._parts.limiter.bump_generation("unknown-key1")
    except LimiterUnavailable:
        return False
    return True


async def _revokes(auth: KeyAuth, key_id: str) -> bool:
    try:
        await auth.keys.revoke(key_id)
    except ChangePending:
        return False
    return True


async def test_blocks_on_all_nodes_are_listed_and_removed(cluster: Cluster, make_limiter: MakeLimiter) -> None:
    limiter, other = make_limiter(), make_limiter()
    buckets = {f"192.0.2.{number}" for number in range(12)}
    assert len({cluster.owner(f"t:{{{bucket}}}") for bucket in buckets}) == 3
    for bucket in buckets:
        for _ in range(3):
            await limiter.record_failure(bucket)
    found = await other.blocks()
    assert (set(found), set(found.values()) <= {59, 60}) == (buckets, True)
    for bucket in buckets:
        assert await other.unblock(bucket) is True
        assert (await other.check(question("k", None, bucket=bucket))).verdict is Verdict.ADMITTED
    assert (await limiter.blocks(), await limiter.unblock("192.0.2.1")) == ({}, False)


async def test_a_cluster_reports_its_version(cluster: Cluster, tmp_path: Path) -> None:
    async with worker(tmp_path, cluster.url) as auth:
        info = await auth._parts.limiter.primary.server_info()  # type: ignore[attr-defined]  # of the FailoverLimiter
        assert info.version.endswith(", a cluster of 3 primaries,")


async def test_a_warning_about_several_nodes_is_returned_once(cluster: Cluster, make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    await limiter.probe()
    for server in cluster.servers:
        cluster.ask(server, "CONFIG", "SET", "maxmemory", 10**9, "maxmemory-policy", "allkeys-lru")
    try:
        assert [danger.code for danger in await limiter.run_checks()] == ["redis_evicts"]
    finally:
        for server in cluster.servers:
            cluster.ask(server, "CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")


async def test_a_start_on_a_cluster_that_lacks_a_slot_begins_with_an_outage(cluster: Cluster, tmp_path: Path) -> None:
    slot, owner = key_slot(b"somewhere"), cluster.owner("somewhere")
    cluster.ask(owner, "CLUSTER", "DELSLOTS", slot)
    try:
        async with worker(tmp_path, cluster.url, on_limiter_outage="deny") as auth:
            created = await auth.keys.create(owner_id="a", name="k")
            assert await outcome(auth, created.token) == "LimiterUnavailable"
            cluster.ask(owner, "CLUSTER", "ADDSLOTS", slot)
            cluster.wait_until_whole()
            await until(lambda: _is_admitted(auth, created.token))
    finally:
        with suppress(ResponseError):  # it is back already
            cluster.ask(owner, "CLUSTER", "ADDSLOTS", slot)
        cluster.wait_until_whole()


async def _is_admitted(auth: KeyAuth, token: str) -> bool:
    return await outcome(auth, token) == "admitted"


async def test_the_url_of_one_server_at_a_node_of_a_cluster_stops_the_start(cluster: Cluster, tmp_path: Path) -> None:
    """Such a node answers calls for one slot only, and a check has a key and an address."""
    for server in cluster.servers:
        with pytest.raises(SetupError, match=r"rejects the connection \(.*(MOVED|CROSSSLOT)"):
            async with worker(tmp_path, server.url):
                pass


async def test_a_cluster_that_rejects_the_connection_stops_the_start_with_one_sentence(
    cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=r"^The Redis server at .* rejects the connection \(.+\)\.$") as failure:
        async with worker(tmp_path, cluster.url.replace(PASSWORD, "hunter2")):
            pass
    assert not [secret for secret in ("hunter2", PASSWORD) if secret in str(failure.value)]


async def test_the_documented_acl_is_sufficient(cluster: Cluster, tmp_path: Path) -> None:
    allowed = [f"+{command}" for command in service_commands("a cluster")]
    for server in cluster.servers:
        cluster.ask(server, "ACL", "SETUSER", "api", "reset", "on", ">pw", "~keyauth:*", *allowed)
    url = cluster.url.replace(f":{PASSWORD}@", "api:pw@")
    async with worker(tmp_path, url) as auth:
        created = await auth.keys.create(owner_id="a", name="k", hourly_limit=1)
        assert [await outcome(auth, created.token) for _ in range(2)] == ["admitted", "RateLimitExceeded"]
        assert await outcome(auth, "x") == "MalformedApiKey"
