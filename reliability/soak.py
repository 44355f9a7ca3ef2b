"""Minutes of mixed load on real workers, with random faults, and then the audit of the promises."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from reliability.audit import Check, audit
from reliability.faults import Fault, RedisFaults, postgres_faults, together
from reliability.ledger import Struck, Tally
from reliability.pace import FULL, Pace
from reliability.party import Party, party
from reliability.strike import Hands, strike
from reliability.watch import Watch, at_steps
from reliability.workers import KILLED, STOPPED, Ended, end_worker
from tests.helpers.servers import Server

WORKERS = 4
"""Half of the workers are ended repeatedly. The others live through the whole run, and their memory is sampled."""
WRITTEN_WITHIN_S = 4.0
"""Seconds after a database outage in which no worker is killed: by then all have written their counts."""
CHANGING = 2
CHANGE_EVERY_S = 0.25
"""Number of tasks that change keys, and the interval of each."""
FEW_KEYS = 20
RECENT_OWNERS = 4

Card = Fault | str
"""A fault of a server, or the end of a worker."""


@dataclass(frozen=True)
class FaultRow:
    """Results of one fault over a half. Times in seconds."""

    fault: str
    times: int
    unavailable: int
    unanswered: int
    slowest_s: float
    slowest_inside_s: float
    recovery_median_s: float
    recovery_worst_s: float


@dataclass(frozen=True)
class Half:
    """Results of one policy's half of the soak."""

    policy: str
    seconds: int
    requests: int
    keys: int
    faults: list[FaultRow]
    calm_slowest_s: float
    calm_slowest_inside_s: float
    checks: list[Check]
    memory_mib: list[list[float]]
    """Evenly spaced samples of each worker that lived through the half."""
    lag_s: float
    examples: list[str]


@dataclass(frozen=True)
class Soak:
    """Results of both halves."""

    minutes: float
    seed: int
    halves: list[Half]

    def is_clean(self) -> bool:
        """Return whether every promise was kept."""
        return all(check.holds for half in self.halves for check in half.checks)


class Storm:
    """Random faults on one party, one after another.

    Attributes:
        ended: Workers that were ended.
    """

    def __init__(self, party: Party, cards: Sequence[Card], hands: Hands, chance: random.Random, pace: Pace) -> None:
        self._party = party
        self._cards = cards
        self._hands = hands
        self._chance = chance
        self._pace = pace
        self._spared = sorted(party.site.workers())[party.site.count // 2 :]
        self._database_back_at = 0.0
        self.ended: list[Ended] = []

    @property
    def spared(self) -> list[int]:
        """Return the workers that are never ended."""
        return self._spared

    async def rage(self, until: float) -> None:
        """Inject faults until that time on the monotonic clock, and until all cards were drawn equally often."""
        while True:
            deck = list(self._cards)
            self._chance.shuffle(deck)
            for card in deck:
                await self._party.rest(self._chance.uniform(*self._pace.calm_s))
                if isinstance(card, str):
                    await self._end_a_worker(is_clean=card == STOPPED)
                else:
                    await self._strike(card)
            if time.monotonic() > until:
                return

    async def _strike(self, fault: Fault) -> None:
        if fault.ends_worker:
            await self._wait_until_written()
        meanwhile = self._replace_a_worker if fault.ends_worker else None
        await strike(fault, [self._party], self._hands, self._chance.uniform(*self._pace.during_s), meanwhile)
        if not fault.spares_database:
            self._database_back_at = time.monotonic()

    async def _replace_a_worker(self, party: Party) -> None:
        self.ended.append(await end_worker(party, self._pick_victim(), is_clean=False))
        await party.site.reach_every_worker()

    async def _wait_until_written(self) -> None:
        await asyncio.sleep(max(0.0, self._database_back_at + WRITTEN_WITHIN_S - time.monotonic()))

    def _pick_victim(self) -> int:
        return self._chance.choice(sorted(self._party.site.workers() - set(self._spared)))

    async def _end_a_worker(self, *, is_clean: bool) -> None:
        await self._wait_until_written()
        began_at = time.monotonic()
        with self._party.ledger.tally() as tally:
            self.ended.append(await end_worker(self._party, self._pick_victim(), is_clean=is_clean))
            recovery_s = await self._party.recovered_at() - began_at
        self._party.seen[STOPPED if is_clean else KILLED].append(Struck(tally, recovery_s))


def all_cards(redis: RedisFaults, postgres: Sequence[Fault], chance: random.Random) -> list[Card]:
    """Return every fault of one server, faults of two servers together, and ends of workers."""
    both = [together(fault, chance.choice(postgres)) for fault in chance.sample(redis.all(), 2)]
    return [*redis.all(), *postgres, *both, redis.with_a_worker(), KILLED, KILLED, STOPPED, STOPPED]


async def run_half(
    policy: str,
    seconds: float,
    servers: tuple[Server, Server],
    folder: Path,
    chance: random.Random,
    *,
    workers: int = WORKERS,
    cards: Sequence[Card] | None = None,
    pace: Pace = FULL,
) -> Half:
    """Run the half of one policy.

    Args:
        policy: With ``deny`` Redis must write to disk before it responds, so that no unit is used twice, even
            if it is killed; with ``local`` it comes back empty.
        seconds: Minimum duration; the last round of faults is completed.
        servers: Redis and PostgreSQL, both empty.
        folder: Working and log directory of the workers.
        chance: Source of the random choices.
        workers: Number of workers.
        cards: Faults of each round. Default: all.
        pace: Amount and speed of the load.
    """
    redis, postgres = servers
    env = {"KEYAUTH_DATABASE_URL": postgres.url, "KEYAUTH_REDIS_URL": redis.url}
    hands = Hands()
    try:
        with party(policy, workers, folder, env, pace=pace, may_refuse=True, chance=chance) as each:
            await each.get_ready(pace.keys, pace.cap)
            if cards is None:
                cards = all_cards(RedisFaults(redis, keeps_data=policy == "deny"), postgres_faults(postgres), chance)
            storm = Storm(each, cards, hands, chance, pace)
            watch = Watch(storm.spared, urlsplit(each.site.group.base_url).port or 0)
            watch.look()
            began_at = time.monotonic()
            is_over = asyncio.Event()
            async with each.load.running(), watch.running(), asyncio.TaskGroup() as group:
                for _ in range(CHANGING):
                    group.create_task(_change_on_and_on(each, chance, pace, is_over))
                await storm.rage(began_at + seconds)
                is_over.set()
            took_s = time.monotonic() - began_at
            checks = await audit(each, storm.ended, watch, redis, postgres, pace.pending_s)
            return Half(
                policy,
                round(took_s),
                each.ledger.total.requests,
                len(each.ledger.keys),
                [_row(name, seen) for name, seen in each.seen.items()],
                round(each.calm.slowest_s, 3),
                round(each.calm.slowest_inside_s, 3),
                checks,
                [at_steps(watch.memory_mib[pid]) for pid in storm.spared],
                round(watch.lag_s, 3),
                each.ledger.examples,
            )
    finally:
        hands.close()


async def _change_on_and_on(each: Party, chance: random.Random, pace: Pace, is_over: asyncio.Event) -> None:
    """Create, revoke, disable, enable and rotate keys, suspend and resume owners until the run is over."""
    while not is_over.is_set():
        await asyncio.sleep(chance.uniform(0, 2 * CHANGE_EVERY_S))
        await _change(each, chance, pace.cap)


async def _change(each: Party, chance: random.Random, cap: int) -> None:
    ledger, manager = each.ledger, each.manager
    disabled = [credential for credential in ledger.dead if credential.can_revive]
    kinds = {"make": 30, "cap": 8, "project": 4, "suspend": 14, "revoke": 14, "disable": 10, "enable": 10, "rotate": 10}
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    owners = [owner for owner in ledger.owners[-RECENT_OWNERS:] if owner not in manager.changing]
    if kind == "project":
        await manager.make_project(cap)
    elif kind == "suspend" and owners:
        await manager.suspend_or_resume(chance.choice(owners))
    elif kind == "enable" and disabled:
        await manager.enable(chance.choice(disabled))
    elif kind == "cap":
        await manager.make(cap)
    elif kind == "make" or len(ledger.live) < FEW_KEYS:
        await manager.make()
    elif kind in ("revoke", "disable", "rotate"):
        await {"revoke": manager.revoke, "disable": manager.disable, "rotate": manager.rotate}[kind](
            chance.choice(ledger.live)
        )


def _row(name: str, seen: Sequence[Struck]) -> FaultRow:
    total = Tally()
    for struck in seen:
        total.merge(struck.tally)
    recoveries = [struck.recovery_s for struck in seen]
    return FaultRow(
        name,
        len(seen),
        total.unavailable,
        total.lost,
        round(total.slowest_s, 3),
        round(total.slowest_inside_s, 3),
        round(median(recoveries), 3),
        round(max(recoveries), 3),
    )
