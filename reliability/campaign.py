"""Each fault of Redis repeated under load, for both policies together, with keys ended in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from reliability import counts
from reliability.counts import Counted
from reliability.faults import RedisFaults
from reliability.ledger import ADMITTED_DEAD, Tally
from reliability.pace import FULL, Pace
from reliability.party import Party, party
from reliability.strike import Hands, strike
from tests.helpers.servers import Server

POLICIES = ("local", "deny")
REDIS_LIMIT_S = 1.0
"""Limit for any response: ``redis_timeout_s``, 0.5 here, plus half a second."""
RECOVER_LIMIT_S = 3.0
"""Limit from the server's return until every worker has recovered."""


@dataclass(frozen=True)
class Row:
    """Results of one fault under one policy. Times in seconds."""

    fault: str
    policy: str
    times: int
    requests: int
    unavailable: int
    unanswered: int
    wrong_admissions: int
    other_violations: int
    slowest_s: float
    slowest_inside_s: float
    recovery_median_s: float
    recovery_worst_s: float


@dataclass(frozen=True)
class Side:
    """Results of one policy over all faults."""

    policy: str
    ended_keys: int
    capped_keys: int
    full_keys: int
    over_cap: int
    counted: int
    uncounted: int
    violations: dict[str, int]
    examples: list[str]
    calm_slowest_s: float
    calm_slowest_inside_s: float


@dataclass(frozen=True)
class Campaign:
    """Results of the whole campaign."""

    times: int
    workers: dict[str, int]
    rows: list[Row]
    sides: list[Side]

    def is_clean(self) -> bool:
        """Return whether every promise was kept, including those about time."""
        is_right = not any(side.over_cap or side.uncounted or side.violations for side in self.sides)
        return is_right and all(
            row.unanswered == 0 and row.slowest_s <= REDIS_LIMIT_S and row.recovery_worst_s <= RECOVER_LIMIT_S
            for row in self.rows
        )


async def run(
    redis: Server,
    database_url: str,
    folder: Path,
    times: int,
    workers: Mapping[str, int],
    seed: int,
    say: Callable[[str], None],
    *,
    pace: Pace = FULL,
) -> Campaign:
    """Run each fault ``times`` times.

    Args:
        redis: Server that fails.
        database_url: An empty database.
        folder: Working and log directory of the workers.
        times: Repetitions of each fault.
        workers: Number of workers for each policy.
        seed: Seed of the random choices.
        say: Called with progress messages.
        pace: Amount and speed of the load.
    """
    hands = Hands()
    env = {"KEYAUTH_DATABASE_URL": database_url, "KEYAUTH_REDIS_URL": redis.url}
    chance = random.Random(seed)  # noqa: S311  # the same again for the same seed
    faults = RedisFaults(redis, keeps_data=False).all()
    try:
        async with AsyncExitStack() as stack:
            parties = [
                stack.enter_context(
                    party(
                        policy,
                        workers[policy],
                        folder / policy,
                        env,
                        pace=pace,
                        may_refuse=policy == "deny",
                        chance=chance,
                    )
                )
                for policy in POLICIES
            ]
            async with AsyncExitStack() as loads:
                for each in parties:
                    await each.get_ready(pace.keys, pace.cap)
                    await loads.enter_async_context(each.load.running())
                for fault in faults:
                    for _ in range(times):
                        await asyncio.gather(*(each.prepare(pace.cap) for each in parties))
                        await strike(fault, parties, hands, chance.uniform(*pace.during_s), Party.end_the_doomed)
                    say(f"{fault.name}: {times} times")
                await asyncio.sleep(pace.pending_s)
            ended = await asyncio.gather(*(each.ask_for_the_dead() for each in parties))
            for each in parties:
                await each.close()
            counted = [await counts.compare(each.ledger, redis.url, database_url) for each in parties]
            sides = [_side(*found) for found in zip(parties, ended, counted, strict=True)]
    finally:
        hands.close()
    rows = [_row(fault.name, each) for fault in faults for each in parties]
    return Campaign(times, dict(workers), rows, sides)


def _row(fault: str, each: Party) -> Row:
    total, seen = Tally(), each.seen[fault]
    for struck in seen:
        total.merge(struck.tally)
    recoveries = [struck.recovery_s for struck in seen]
    wrong = total.violations[ADMITTED_DEAD]
    return Row(
        fault=fault,
        policy=each.site.policy,
        times=len(seen),
        requests=total.requests,
        unavailable=total.unavailable,
        unanswered=total.lost,
        wrong_admissions=wrong,
        other_violations=total.violations.total() - wrong,
        slowest_s=round(total.slowest_s, 3),
        slowest_inside_s=round(total.slowest_inside_s, 3),
        recovery_median_s=round(median(recoveries), 3),
        recovery_worst_s=round(max(recoveries), 3),
    )


def _side(each: Party, ended: int, counted: Counted) -> Side:
    ledger = each.ledger
    capped = [key for key in ledger.keys.values() if key.limit is not None]
    return Side(
        policy=ledger.policy,
        ended_keys=ended,
        capped_keys=len(capped),
        full_keys=sum(key.is_full for key in capped),
        over_cap=ledger.over_cap(),
        counted=counted.admitted,
        uncounted=counted.uncounted,
        violations=dict(ledger.total.violations),
        examples=ledger.examples,
        calm_slowest_s=round(each.calm.slowest_s, 3),
        calm_slowest_inside_s=round(each.calm.slowest_inside_s, 3),
    )
