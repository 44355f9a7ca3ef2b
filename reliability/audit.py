"""The audit after the faults: acknowledged changes hold, and nothing is lost or left over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from sqlalchemy.engine import make_url

from reliability import counts
from reliability.campaign import RECOVER_LIMIT_S, REDIS_LIMIT_S
from reliability.ledger import ADMITTED_DEAD, ADMITTED_SUSPENDED, ERROR, HUNG, ODD, REFUSED_LIVE
from reliability.line import Line
from reliability.load import ask_with
from reliability.party import Party
from reliability.watch import Watch, redis_connections
from reliability.workers import Ended, unanswered
from tests.helpers.servers import Server

GROWTH_MIB = 8.0
"""Allowed growth of a worker in the second half of its time: it still learns about keys."""
REDIS_EACH = 8
POSTGRES_EACH = 5  # Number of connections that SQLAlchemy's pool keeps.
FILES = 8
RESTART_S = 3.0
"""Seconds that a restart of Redis takes on a busy machine, at whose beginning the memory is lost."""
UNWRITTEN_S = 2.5
"""Seconds of counts that a killed worker may lose: two between writes, and the duration of a write."""


@dataclass(frozen=True)
class Check:
    """One promise, the observation, and whether the promise was kept."""

    promise: str
    seen: str
    holds: bool


async def audit(
    party: Party,
    ended: Sequence[Ended],
    watch: Watch,
    redis: Server,
    postgres: Server,
    pending_s: float,
) -> list[Check]:
    """Audit everything. The load is over; the workers run when this begins and are stopped when it ends."""
    await party.manager.settle()
    await asyncio.sleep(pending_s)
    await party.recovered_at()
    dead = await party.ask_for_the_dead()
    good, missing = await _ask_for_the_good(party)
    watch.look()
    connections = _connections(party, watch, redis), await _database_connections(postgres.url, party.site.count)
    await party.close()
    counted = await counts.compare(party.ledger, redis.url, postgres.url)
    ledger, violations = party.ledger, party.ledger.total.violations
    capped = [key for key in ledger.keys.values() if key.limit is not None]
    over_cap = sum(map(ledger.over_limit, capped))
    over = sum(map(ledger.over_limit, ledger.owners))
    clean = [unanswered(party, end) for end in ended if end.is_clean]
    return [
        Check(
            "rate limits are never exceeded",
            f"{len(capped)} keys with a limit, {sum(key.is_full for key in capped)} used up; {over_cap} units over it",
            over_cap == 0,
        ),
        Check(
            "the limit of an owner is never exceeded",
            f"{len(ledger.owners)} owners with a limit, {sum(owner.is_full for owner in ledger.owners)} used up by "
            f"{sum(len(owner.credentials) for owner in ledger.owners)} keys; {over} over it",
            over == 0,
        ),
        Check(
            "a suspended owner's keys are refused once the suspension is answered",
            f"{sum(owner.suspensions for owner in ledger.owners)} suspensions; "
            f"{violations[ADMITTED_SUSPENDED]} requests admitted",
            violations[ADMITTED_SUSPENDED] == 0,
        ),
        Check(
            "Redis has counted every admitted request"
            + (", except those of workers on their own" if ledger.policy == "local" else ""),
            f"{counted.admitted} requests since Redis last lost its data, {counted.units} units, "
            f"{counted.uncounted} not counted",
            counted.uncounted == 0,
        ),
        Check("every key answered with 201 exists", f"{len(ledger.keys)} keys, {missing} missing", missing == 0),
        Check(
            "every active key is always admitted",
            f"{good} keys at the end; {violations[REFUSED_LIVE]} requests refused",
            violations[REFUSED_LIVE] == 0,
        ),
        Check(
            "all workers refuse revoked, disabled and replaced secrets once the change is answered",
            f"{dead} secrets; {violations[ADMITTED_DEAD]} requests admitted",
            violations[ADMITTED_DEAD] == 0,
        ),
        Check("no 500", f"{violations[ERROR]} of {ledger.total.requests}", violations[ERROR] == 0),
        Check("no undocumented response", f"{violations[ODD]}", violations[ODD] == 0),
        Check("every request is answered", f"{violations[HUNG]} hung", violations[HUNG] == 0),
        _calm(party),
        *_times(party),
        Check(
            "a stopped worker answers all requests that it has accepted",
            f"{len(clean)} stopped, {sum(clean)} requests lost",
            not any(clean),
        ),
        *connections,
        _memory(watch),
        await _usage(party, ended, postgres),
        Check(
            "no unexpected errors in the workers' logs",
            f"{party.site.group.log().count('Traceback')} tracebacks",
            "Traceback" not in party.site.group.log(),
        ),
    ]


def _calm(party: Party) -> Check:
    """Check for 503 responses while nothing was broken, or after recovery."""
    amid = sum(struck.tally.unavailable for seen in party.seen.values() for struck in seen)
    calm = party.ledger.total.unavailable - amid
    return Check("no 503 without a fault", f"{calm}; {amid} during faults", calm == 0)


def _times(party: Party) -> list[Check]:
    """Check times for faults of Redis alone: database faults have longer limits, and a restart includes startup."""
    alone = [struck for name, seen in party.seen.items() if _is_of_redis_alone(name) for struck in seen]
    slowest = max((struck.tally.slowest_s for struck in alone), default=0.0)
    inside = max((struck.tally.slowest_inside_s for struck in alone), default=0.0)
    recovery = max((struck.recovery_s for struck in alone), default=0.0)
    return [
        Check(
            f"no response takes longer than {REDIS_LIMIT_S:g} s during a Redis outage",
            f"slowest: {slowest:.2f} s, of which {inside:.2f} s in the worker",
            slowest <= REDIS_LIMIT_S,
        ),
        Check(
            f"recovery from a Redis outage within {RECOVER_LIMIT_S:g} s",
            f"slowest: {recovery:.2f} s",
            recovery <= RECOVER_LIMIT_S,
        ),
    ]


def _is_of_redis_alone(name: str) -> bool:
    return "Redis" in name and "PostgreSQL" not in name  # Nor with a worker's end, which is named differently.


def _connections(party: Party, watch: Watch, redis: Server) -> Check:
    count, most = redis_connections(redis.url), REDIS_EACH * party.site.count
    growth = max((files[-1] - files[0] for files in watch.files.values()), default=0)
    return Check(
        "no leaked connections to Redis or open files",
        f"{count} connections to Redis at the end (at most {most}), {growth:+d} open files in a worker",
        count <= most and growth <= FILES,
    )


async def _database_connections(url: str, workers: int) -> Check:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
    try:
        count = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    finally:
        await connection.close()
    most = workers * POSTGRES_EACH
    return Check(
        "no leaked connections to the database",
        f"{count - 1} connections at the end (at most {most})",
        count - 1 <= most,
    )


def _memory(watch: Watch) -> Check:
    growths = [samples[-1] - samples[len(samples) // 2] for samples in watch.memory_mib.values()]
    most = max(growths, default=0.0)
    return Check(
        "memory is constant", f"{most:+.1f} MiB in the second half of the run, in the worst worker", most <= GROWTH_MIB
    )


async def _ask_for_the_good(party: Party) -> tuple[int, int]:
    """Send a request with every key that was not ended, and read every key.

    Return how many were used and how many are missing.
    """
    ledger = party.ledger
    line = Line(party.site.group.base_url, ledger, "192.0.2.250")
    credentials = [*ledger.live, *ledger.capped]
    missing = 0
    for credential in credentials:
        await ask_with(line, ledger, credential)
    for key in ledger.keys.values():
        answer = await line.ask("GET", f"/api-keys/{key.id}", session=party.manager.admin_session)
        missing += answer is None or answer.status != 200
    await line.close()
    return len(credentials), missing


async def _usage(party: Party, ended: Sequence[Ended], postgres: Server) -> Check:
    """Compare the usage in the database with the observed responses."""
    url = make_url(postgres.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        written = int(await connection.fetchval("SELECT coalesce(sum(units), 0) FROM keyauth_usage_hours"))
    finally:
        await connection.close()
    ledger = party.ledger
    admitted = sum(key.admitted.total() for key in ledger.keys.values())
    killed = [end for end in ended if not end.is_clean]
    may_lose = sum(
        _may_be_unwritten(at, [end.at for end in killed if end.pid == pid], ledger.data_lost_at)
        for pid, times in ledger.admitted_at.items()
        for at in times
    )
    lost = ledger.total.lost
    # Redis may have counted a request that was answered with 503, because its response came too late.
    least, most = admitted - may_lose, admitted + lost + ledger.total.unavailable
    return Check(
        "usage in the database matches the admitted requests",
        f"{admitted} admitted, {written} written; {len(killed)} killed workers and {len(ledger.data_lost_at)} losses of"
        f" Redis's memory may have lost {may_lose}, and {lost} requests had no response",
        least <= written <= most,
    )


def _may_be_unwritten(at: float, killed_at: Sequence[float], data_lost_at: Sequence[float]) -> bool:
    """Return whether an admission may be missing, because its worker was killed or Redis lost its memory."""
    return any(end - UNWRITTEN_S < at <= end + UNWRITTEN_S for end in killed_at) or any(
        lost - UNWRITTEN_S - RESTART_S < at <= lost for lost in data_lost_at
    )
