"""A deterministic world for the real lease code: workers, one server, a network between them, and virtual time.

Times are milliseconds of true time. Each process has a clock of its own, which may be up to 2 % fast or slow.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import random
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet
from fastapi_keyauth.limiter.leases.addresses import address_check
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.clock import outlast_s
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk, Plan
from fastapi_keyauth.limiter.protocol import Allowance, Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.redis.leasing import RETURN_AFTER_S
from fastapi_keyauth.telemetry.counters import Counters
from tests.simulation.authority import Authority

LEASE_MS = 100
TIMER_MS = RETURN_AFTER_S * 1000
RETRY_MS = 300
"""Milliseconds after which a change that could not be announced is announced again."""


@dataclass(frozen=True)
class Action:
    """Something that happens to the world."""

    at_ms: float
    kind: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """What happens, and everything else that a run depends on."""

    seed: int
    actions: tuple[Action, ...]
    limits: tuple[LimitSet, ...]
    workers: int
    delay_ms: float
    starts_at_ms: int
    is_calm: bool
    """Whether no worker is paused or killed, and nothing is lost."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Request:
    """One request of a client, and the row that it was last asked about with."""

    started_at: float
    key: int
    bucket: str | None
    cost: Cost
    is_fresh: bool = False
    row: Row | None = None
    tries: int = 0


@dataclass
class Row:
    """A key's row in a worker's memory."""

    generation: str
    version: int
    lease: Lease | None = None
    """The lease that admitted a request with this row."""
    allowance: Allowance | None = None


@dataclass
class Admission:
    """A request that was admitted, and when by the server's clock; if not from a lease, when it was charged."""

    now_ms: int
    charge: str
    request: Request


class Worker:
    """One worker with the real `LeaseBook`, and a batcher with one call in flight, as `limiter/redis` has it."""

    def __init__(self, world: World, number: int, rate: float) -> None:
        self.world = world
        self.number = number
        self.rate = rate
        self.offset = world.random.uniform(0, 1000)
        self.epoch = 0
        self.rows: dict[int, Row] = {}
        self.queue: list[Request] = []
        self.in_flight: tuple[Plan, list[tuple[Request, LimitCheck]]] | None = None
        self.connection = 0
        self.last_there = self.last_back = 0.0
        self.paused_until = 0.0
        self.is_dead = False
        self.counters = Counters()
        self.book = LeaseBook(LEASE_MS, self.clock, self.counters)
        self.has_timer = False
        self.renewed = 0
        """Renewals that were requested."""
        self.allowed = 0
        """Requests that were admitted by an allowance."""

    def clock(self) -> float:
        """Return the lease clock of this worker, in seconds."""
        return (self.offset + self.world.now * self.rate) / 1000

    def question(self, request: Request) -> LimitCheck:
        """Return the question about a request, as the authenticator asks it."""
        row = request.row = self.rows.get(request.key)
        limits = self.world.schedule.limits[request.key]
        generation = row.generation if row else ""
        return LimitCheck(
            f"key{request.key}", request.bucket, limits, request.cost, generation, 1.0, request.is_fresh, "owner"
        )

    def handle(self, request: Request) -> None:
        """Admit a request from a lease, or ask."""
        if not self.admit(request):
            self.queue.append(request)
            if self.in_flight is None:
                self.flush()

    def admit(self, request: Request) -> bool:
        """Admit a request from a lease."""
        if request.key not in self.rows or request.is_fresh:
            return False
        question, row = self.question(request), self.rows[request.key]
        is_allowed = row.allowance is not None and request.cost is ONE_REQUEST
        if not is_allowed or row.allowance is None or row.allowance.take(request.bucket) is None:
            lease = self.book._live.get((question.key_id, request.cost))  # its name is for the oracle alone
            decision = self.book.admit(question)
            if decision is None:
                return False
            assert lease is not None
            if self.book.to_renew:
                self.renew()
            if request.cost is not ONE_REQUEST:
                self.world.admitted(request, lease.grant.stamp, self.world.redis_ms())
                return True
            row.lease, row.allowance = lease, self.book.find_allowance(question)
        else:
            self.allowed += 1
        assert row.lease is not None
        self.world.admitted(request, row.lease.grant.stamp, self.world.redis_ms())
        return True

    def flush(self) -> None:
        """Send what waits, in one call."""
        batch, self.queue = [(request, self.question(request)) for request in self.queue], []
        plan = self.book.plan([question for _, question in batch])
        self.in_flight = (plan, batch)
        self.send(plan, batch)

    def send(self, plan: Plan, batch: list[tuple[Request, LimitCheck]]) -> None:
        """Send a call."""
        plan.mark_sent(self.clock(), self.epoch)
        returns = [(lease, lease.used, lease.left) for lease in plan.returned]
        addresses = [address_check(bucket) for bucket in plan.buckets]
        prefix = f"{self.epoch}:"
        asks = [copy.copy(ask) for ask in plan.asks]
        for ask in asks:
            ask.generation = ask.generation.removeprefix(prefix)
        checks = [
            (request, question._replace(generation=question.generation.removeprefix(prefix)))
            for request, question in batch
        ]
        connection, world = self.connection, self.world

        def execute() -> None:
            for lease, used, left in returns:
                world.authority.give_back(lease, used, left, world.redis_ms())
            now_ms = world.redis_ms()
            checked = [world.authority.take(question, now_ms) for question in addresses]
            decisions, names = [], []
            for request, question in checks:
                decision = world.authority.take(question, now_ms)
                names.append(world.charge_name() if decision.verdict is Verdict.ADMITTED else "")
                if decision.verdict is Verdict.LIMITED:
                    world.refusals.append((now_ms, request))
                decisions.append(decision)
            grants = [world.grant(ask) for ask in asks]

            def receive() -> None:
                self.book.receive(plan, grants, self.epoch)
                self.book.note_unblocked(addresses, checked, plan.sent_at)
                self.received(plan, batch, decisions, names, now_ms)

            world.deliver(self, connection, receive)

        world.send(self, connection, execute)

    def received(self, plan: Plan, batch: Any, decisions: list[Decision], names: list[str], at_ms: int) -> None:
        """Take an answer, which was given at a moment of the server's clock."""
        self.book.note_unblocked([question for _, question in batch], decisions, plan.sent_at)
        if not batch:  # a call of the timer, or a renewal
            self.set_timer()
            return
        self.in_flight = None
        for (request, _), decision, name in zip(batch, decisions, names, strict=True):
            self.decide(request, decision, name, at_ms)
        self.queue = [request for request in self.queue if not self.admit(request)]
        if self.queue:
            self.flush()
        self.set_timer()

    def decide(self, request: Request, decision: Decision, name: str, at_ms: int) -> None:
        """Act on a decision, as the authenticator does."""
        generation = f"{self.epoch}:{decision.generation}"
        world = self.world
        if decision.verdict is Verdict.STALE:

            def read() -> None:
                self.rows[request.key] = Row(generation, world.versions[request.key])
                request.is_fresh = True
                self.handle(request)

            world.at_worker(self, world.random.uniform(0, 2), read)
        elif decision.verdict is Verdict.WAITING:
            request.tries += 1
            if request.tries > 10:
                raise Violation("a question was told to wait for ever")
            world.at_worker(self, decision.wait_s / self.rate, lambda: self.handle(request))
        elif decision.verdict is Verdict.ADMITTED:
            world.admitted(request, name, at_ms)
        else:
            world.answered += 1

    def set_timer(self) -> None:
        """Have leases returned when they are over."""
        next_end_s = self.book.next_end_s()
        if next_end_s is not None and not self.has_timer:
            self.has_timer = True
            self.world.at_worker(self, (next_end_s * 1000 + TIMER_MS) / self.rate, self.fire)

    def fire(self) -> None:
        """Return leases that are over."""
        self.has_timer = False
        if self.book.end_due():
            self.send_returns()
        self.set_timer()

    def renew(self) -> None:
        """Renew leases that are about to end."""
        plan = self.book.plan_renewals()
        if plan.asks:
            self.renewed += len(plan.asks)
            self.send(plan, [])

    def report(self) -> None:
        """Return all leases, as `read_usage` does, so that what they admitted is counted."""
        self.book.end_all()
        self.send_returns()

    def send_returns(self) -> None:
        """Make a call that does nothing but return leases."""
        plan = self.book.plan([])
        if plan.returns:
            self.send(plan, [])

    def lose_connection(self) -> None:
        """Connect again, and send what was in flight once more."""
        self.connection += 1
        self.last_there = self.last_back = self.world.now
        self.epoch += 1
        self.book.end_all()
        if self.in_flight is None:
            return
        if self.world.random.random() < 0.7:
            self.send(*self.in_flight)
            return
        self.book.fail(self.in_flight[0])  # it failed again: an outage
        self.in_flight = None
        if self.queue:
            self.flush()


class World:
    """Runs a schedule. Raises `Violation` if a promise is broken."""

    def __init__(self, schedule: Schedule, make_authority: Callable[[], Authority] = Authority) -> None:
        self.schedule = schedule
        self.random = random.Random(schedule.seed)
        self.make_authority = make_authority
        self.authority = make_authority()
        self.snapshots: list[tuple[float, Authority]] = []
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        """What happens next: when, in which order, and what."""
        self.numbers = itertools.count()
        keys = len(schedule.limits)
        self.versions = [0] * keys
        """Of the rows in the database."""
        self.required: list[list[tuple[float, int]]] = [[] for _ in range(keys)]
        """Versions that were answered, and when."""
        self.blocked: dict[str, float] = {}
        """Blocks that were answered, and when."""
        self.admissions: list[Admission] = []
        self.refusals: list[tuple[int, Request]] = []
        self.answered = 0
        self.granted = 0
        self.ambush: list[Callable[[], None]] = []
        self.workers = [self.new_worker(number) for number in range(schedule.workers)]

    def new_worker(self, number: int) -> Worker:
        """Return a worker whose clock is wrong by up to 2 %."""
        return Worker(self, number, self.random.choice((0.98, 1.0, 1.02, self.random.uniform(0.98, 1.02))))

    def redis_ms(self) -> int:
        """Return the time of the server's clock."""
        return self.schedule.starts_at_ms + int(self.now)

    # Time

    def at(self, delay_ms: float, run: Callable[[], None]) -> None:
        """Run something later."""
        heapq.heappush(self.events, (self.now + delay_ms, next(self.numbers), run))

    def at_worker(self, worker: Worker, delay_ms: float, run: Callable[[], None]) -> None:
        """Run something in a worker, later if it is paused then, and not at all if it was killed."""

        def attempt() -> None:
            if worker.is_dead:
                return
            if worker.paused_until > self.now:
                self.at(worker.paused_until - self.now, attempt)
            else:
                run()

        self.at(delay_ms, attempt)

    def run(self) -> None:
        """Run the whole schedule, and check what can only be checked at its end."""
        for action in self.schedule.actions:
            act = getattr(self, f"on_{action.kind}")
            self.at(action.at_ms, partial(act, *action.args))
        events = self.events
        while events:
            at_ms, _, run = heapq.heappop(events)
            self.now = max(self.now, at_ms)
            run()
        self.check_limits()
        if self.schedule.is_calm:
            self.check_refusals()
            self.check_usage()

    # The network

    def delay(self) -> float:
        """Return how long a message takes: mostly short, sometimes long."""
        limit = self.schedule.delay_ms
        return self.random.uniform(0, limit) if self.random.random() < 0.1 else self.random.uniform(0, limit / 10)

    def send(self, worker: Worker, connection: int, execute: Callable[[], None]) -> None:
        """Carry a call to the server. A call over a connection that was lost may still arrive."""
        arrives_at = worker.last_there = max(worker.last_there, self.now + self.delay())
        server, is_lucky = self.authority, self.random.random() < 0.5

        def arrive() -> None:
            if worker.connection == connection or (is_lucky and server is self.authority):
                execute()

        self.at(arrives_at - self.now, arrive)

    def deliver(self, worker: Worker, connection: int, receive: Callable[[], None]) -> None:
        """Carry an answer back, unless the connection is lost by then."""
        arrives_at = worker.last_back = max(worker.last_back, self.now + self.delay())

        def arrive() -> None:
            if worker.connection == connection:
                receive()

        self.at_worker(worker, arrives_at - self.now, arrive)

    # What happens

    def on_request(self, number: int, key: int, bucket: str | None, cost: Cost = ONE_REQUEST) -> None:
        """A client sends a request."""
        worker, request = self.workers[number], Request(self.now, key, bucket, cost)
        if worker.paused_until > self.now:
            self.at_worker(worker, 0, lambda: worker.handle(request))
        else:
            worker.handle(request)

    def on_burst(self, number: int, key: int, bucket: str | None, cost: Cost, count: int, gap_ms: float) -> None:
        """A client sends many requests."""
        for position in range(count):
            self.at(position * gap_ms, partial(self.on_request, number, key, bucket, cost))

    def on_change(self, key: int | None) -> None:
        """Somebody changes a key, or the owner of all keys."""
        keys = range(len(self.versions)) if key is None else [key]
        for one in keys:
            self.versions[one] += 1
        versions = [(one, self.versions[one]) for one in keys]
        self.announce("owner" if key is None else f"key{key}", versions, self.random.choice((0.98, 1.0, 1.02)))

    def announce(self, name: str, versions: list[tuple[int, int]], rate: float) -> None:
        """Replace the generation; wait; answer. If the server was lost meanwhile, do it again later."""

        def execute() -> None:
            server = self.authority
            recorded_ms = server.bump(name, self.redis_ms())

            def arrive() -> None:
                if server is not self.authority:
                    self.at(RETRY_MS, lambda: self.announce(name, versions, rate))
                    return
                self.at(outlast_s(LEASE_MS, recorded_ms) * 1000 / rate, answer)

            self.at(self.delay(), arrive)

        def answer() -> None:
            for key, version in versions:
                self.required[key].append((self.now, version))
                self.probe(key, None)

        self.at(self.delay(), execute)

    def on_fail(self, bucket: str) -> None:
        """An address sends a wrong token."""
        rate = self.random.choice((0.98, 1.0, 1.02))

        def execute() -> None:
            if self.authority.fail(bucket):
                self.at(self.delay() + outlast_s(LEASE_MS) * 1000 / rate, partial(answer, self.authority))

        def answer(server: Authority) -> None:
            if server is self.authority:  # otherwise the block is lost with the memory
                self.blocked[bucket] = self.now
                self.probe(0, bucket)

        self.at(self.delay(), execute)

    def probe(self, key: int, bucket: str | None) -> None:
        """Send a request to each worker as soon as something was answered: a lease that is still alive shows."""
        for number in range(len(self.workers)):
            self.at(0.001, partial(self.on_request, number, key, bucket))

    def on_ambush(self, kind: str, *args: Any) -> None:
        """Let something happen immediately after the next grant."""
        self.ambush = [partial(getattr(self, f"on_{kind}"), *args)]

    def on_pause(self, number: int, for_ms: float) -> None:
        """A worker stands still."""
        self.workers[number].paused_until = max(self.workers[number].paused_until, self.now + for_ms)

    def on_report(self, number: int) -> None:
        """Somebody asks a worker for usage."""
        worker = self.workers[number]
        self.at_worker(worker, 0, worker.report)

    def on_kill(self, number: int) -> None:
        """A worker is killed, and another one takes its place."""
        self.workers[number].is_dead = True
        self.workers[number] = self.new_worker(number)

    def on_break(self, number: int) -> None:
        """A connection breaks."""
        worker = self.workers[number]
        worker.connection += 1  # nothing more comes over the old one
        self.at_worker(worker, 0, worker.lose_connection)

    def on_snapshot(self) -> None:
        """A replica has all that was written by now."""
        self.snapshots.append((self.now, self.copy_of(self.authority)))

    def on_restart(self, *, keeps_connections: bool = False) -> None:
        """The server loses its memory."""
        self.replace(self.make_authority(), keeps_connections=keeps_connections)

    def on_flush(self) -> None:
        """Somebody empties the server. No connection breaks."""
        self.on_restart(keeps_connections=True)

    def on_replace(self) -> None:
        """A replica takes over. It has not received the last writes."""
        if self.snapshots:
            self.replace(self.copy_of(self.snapshots[-1][1]), keeps_connections=False)

    def replace(self, authority: Authority, *, keeps_connections: bool) -> None:
        """Put another memory in place of the server's."""
        self.check_limits()
        authority._numbers = self.authority._numbers  # no name is given twice
        self.authority = authority
        self.blocked = {bucket: at for bucket, at in self.blocked.items() if bucket in authority.blocks}
        if not keeps_connections:
            for number in range(len(self.workers)):
                self.on_break(number)

    @staticmethod
    def copy_of(authority: Authority) -> Authority:
        """Return a copy that shares nothing."""
        numbers, authority._numbers = authority._numbers, itertools.count()
        copied = copy.deepcopy(authority)
        authority._numbers = copied._numbers = numbers
        return copied

    # What must hold

    def admitted(self, request: Request, charge: str, at_ms: int) -> None:
        """Check an admission against the changes and blocks that were answered before it started.

        Args:
            request: The request.
            charge: The name of its charge, or of its lease.
            at_ms: When it was charged, or admitted from the lease, by the server's clock.
        """
        self.answered += 1
        row = request.row
        assert row is not None
        for changed_at, version in self.required[request.key]:
            if changed_at < request.started_at and row.version < version:
                raise Violation(f"at {self.now}: admitted by a row that was changed at {changed_at}")
        if request.bucket is not None and self.blocked.get(request.bucket, self.now) < request.started_at:
            raise Violation(f"at {self.now}: admitted from an address that was blocked")
        self.admissions.append(Admission(at_ms, charge, request))

    def charge_name(self) -> str:
        """Return the name of a charge that the server makes now."""
        name = self.authority.fresh()
        self.authority.charges.add(name)
        return name

    def grant(self, ask: LeaseAsk) -> Grant:
        """Return the server's answer to an ask, with a name for the oracle in its stamp."""
        grant = self.authority.grant(ask, LEASE_MS, self.redis_ms())
        if grant.units:
            self.granted += 1
            while self.ambush:
                self.at(0.001, self.ambush.pop())
            end_ms, _, place = grant.stamp.partition(" ")
            grant = grant._replace(stamp=f"{end_ms}#{self.charge_name()} {place}")
            self.authority.charges.add(grant.stamp)
        return grant

    def used(self, key: int | None, charges: set[str], unit: str, window_ms: int) -> Tally[int]:
        """Return the units admitted in each window, of a key or of all."""
        found: Tally[int] = Tally()
        for one in self.admissions:
            if one.charge in charges and (key is None or one.request.key == key):
                for name, units in one.request.cost:
                    if name == unit:
                        found[one.now_ms // window_ms] += units
        return found

    def check_limits(self) -> None:
        """Check that no limit was exceeded, as far as this memory knows of the charges."""
        charges = self.authority.charges
        for key, limits in enumerate(self.schedule.limits):
            for position, limit in enumerate(limits.all):
                of_key = key if position < len(limits.key) else None
                used = self.used(of_key, charges, limit.unit, limit.window_ms)
                for window, units in used.items():
                    if units > limit.limit:
                        raise Violation(f"{units} of {limit.limit} units in window {window} of {limit.name}")
                if limit.is_sliding:
                    self.check_sliding(of_key, charges, limit)

    def check_sliding(self, key: int | None, charges: set[str], limit: Any) -> None:
        """Check a sliding window at each admission."""
        before: Tally[int] = self.used(key, charges, limit.unit, limit.window_ms)
        now: Tally[int] = Tally()
        for one in sorted(self.admissions, key=lambda one: one.now_ms):
            if one.charge in charges and (key is None or one.request.key == key):
                window = one.now_ms // limit.window_ms
                units = dict(one.request.cost).get(limit.unit, 0)
                now[window] += units
                left_ms = limit.window_ms - one.now_ms % limit.window_ms
                if units and now[window] + before[window - 1] * left_ms // limit.window_ms > limit.limit:
                    raise Violation(f"{now[window]} units and {before[window - 1]} before, {limit.name}")

    def check_refusals(self) -> None:
        """Check that no request was refused that would have fitted, after all that was returned."""
        for now_ms, request in self.refusals:
            limits = self.schedule.limits[request.key]
            for position, (limit, cost) in enumerate(zip(limits.all, limits.costs(request.cost), strict=True)):
                if limit.is_sliding:
                    break  # what is left depends on the moment
                of_key = request.key if position < len(limits.key) else None
                used = self.used(of_key, self.authority.charges, limit.unit, limit.window_ms)
                if used[now_ms // limit.window_ms] + cost > limit.limit:
                    break
            else:
                raise Violation(f"at {now_ms}: refused while there was room: {request}")

    def check_usage(self) -> None:
        """Check that what was counted as used is what was admitted."""
        used = sum(self.authority.usage.values())
        admitted = sum(dict(one.request.cost).get("requests", 0) for one in self.admissions)
        if used != admitted:
            raise Violation(f"{used} counted, {admitted} admitted")
