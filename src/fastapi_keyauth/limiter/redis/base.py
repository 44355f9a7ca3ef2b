"""Base of the limiters on Redis: key names, script arguments, replies, generations and recent blocks."""

import asyncio
import itertools
import secrets
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from redis.asyncio import Redis
from typing_extensions import override

from fastapi_keyauth.domain.usage import UsageCount, UsageOf
from fastapi_keyauth.errors import LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.leases.clock import outlast_s
from fastapi_keyauth.limiter.leases.terms import Plan
from fastapi_keyauth.limiter.protocol import (
    Allowance,
    Decision,
    LimitCheck,
    Limiter,
    Policy,
    ceil_s,
)
from fastapi_keyauth.limiter.redis.batcher import Answered
from fastapi_keyauth.limiter.redis.blocks import RedisBlocks
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.limiter.redis.encoding import LimitEncoder, decode_usage, owner_tag
from fastapi_keyauth.limiter.redis.known_blocks import KnownBlocks
from fastapi_keyauth.limiter.redis.leasing import Leasing
from fastapi_keyauth.limiter.redis.scripts import ScriptArgs
from fastapi_keyauth.limiter.redis.server_info import ServerInfo
from fastapi_keyauth.limiter.redis.take_args import CallRecord, TakeArgs
from fastapi_keyauth.limiter.redis.take_reply import read_decisions
from fastapi_keyauth.settings.redis_urls import RedisUrl, parse_redis_url
from fastapi_keyauth.settings.urls import masked_url
from fastapi_keyauth.telemetry.counters import Counters

KEEP_S = 7200
"""Minimum number of seconds that the hash of a key or owner is kept, also after the end of each of its windows."""
KEEP_TICKETS_S = 7 * 86_400
"""Seconds for which a verification ticket is kept after it was last used."""
START_TRIES = 5
"""Number of probes at startup before Redis counts as unavailable. A machine that starts workers is busy."""
MAX_USAGE_KEYS = 100
"""Maximum number of keys in one question about usage, so that Redis has others wait for a millisecond at most."""
MAX_GENERATIONS = 500
"""Maximum number of keys in one question about generations, so that Redis has others wait for a millisecond at most."""


class RedisLimiterBase(Limiter):
    """A limiter that counts in Redis, with Redis's clock, for many workers.

    Args:
        url: URL of the servers; see ``redis_urls``.
        policy: The policy for failed attempts.
        namespace: First part of every name in Redis.
        timeout_s: Seconds to wait for a reply.
        clock: Returns seconds since 1970 and replaces Redis's clock, for tests.
        answered: Called after each call that carried checks of requests.
        units: The setting ``units``.
        lease_ms: See the setting.
        counters: Where leases are counted.

    Attributes:
        on_outage: Decides in place of Redis if a call fails. None: ``check`` raises. A callback, since an ``except``
            around an ``await`` would cost every request one more coroutine.
        fails_over: Whether another server may take over, which may have lost changes.
        where: URL to show, without passwords.
        signs: Whether servers sign the generations that they create. If not, generations are invalid after a reconnect.
    """

    on_outage: Callable[[LimitCheck, LimiterUnavailable], Decision] | None = None
    fails_over: bool = False
    signs: ClassVar[bool] = False
    counts_usage = True

    def __init__(
        self,
        url: str,
        policy: Policy,
        namespace: str,
        timeout_s: float,
        clock: Callable[[], float] | None = None,
        answered: Answered | None = None,
        units: Sequence[str] = (),
        lease_ms: int = 0,
        counters: Counters | None = None,
    ) -> None:
        self.where = masked_url(url)
        try:
            self._place: RedisUrl = parse_redis_url(url)
        except ValueError as error:
            raise SetupError(f"The Redis URL {self.where} is invalid: it {error}.") from None
        self._policy = policy
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._clock = clock
        self._answered = answered
        self._other_units = " ".join(units)
        self._lease_ms = lease_ms
        self._counters = counters or Counters()
        self._epoch = 0
        self._limits = LimitEncoder()
        self._known_blocks = KnownBlocks(time.monotonic if clock is None else clock)
        self._open()

    def _open(self) -> None:
        """Create the objects that belong to one event loop. Called again by each ``start``; nothing connects yet."""
        # Not in __init__: workers forked from one process must not create the same generations.
        self._nonce = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._leases = Leasing(self._lease_ms, self._clock, self._counters, self._send_plan)

    def invalidate_generations(self) -> None:
        """Invalidate all cached rows, since the server may have rejected changes, or lost them in a failover or
        restart.
        """
        self._epoch += 1
        self._leases.end_all()

    @override
    def try_decide(self, question: LimitCheck) -> Decision | None:
        if question.bucket in self._known_blocks:
            return None  # before ``check``, the caller asks for known blocks
        return self._leases.admit(question)

    @override
    def find_allowance(self, question: LimitCheck) -> Allowance | None:
        return self._leases.find_allowance(question)

    def end_leases(self) -> None:
        """End all leases, since an outage begins. Their units are returned if Redis responds again."""
        self._leases.end_all()

    @abstractmethod
    def _send_plan(self, plan: Plan) -> None:
        """Make a call that returns and renews leases, if there are any, and carries no questions of requests."""

    async def _return_leases(self) -> None:
        """End all leases, and wait until they are returned."""
        self._send_plan(self._leases.end())
        await self._leases.returned()

    @override
    async def start(self) -> None:
        """Connect. If ``LimiterUnavailable`` is raised, the limiter can still be used: it connects when Redis recovers.

        Raises:
            SetupError: If a file that the URL names for TLS cannot be used.
            LimiterUnavailable: If the server does not respond, or rejects the connection.
        """
        self._open()
        ClientFactory(self._place, self._timeout_s).check_tls()
        for left in reversed(range(START_TRIES)):
            try:
                await self.probe()
            except LimiterUnavailable:
                if not left:
                    raise
            else:
                return

    @abstractmethod
    async def probe(self) -> None:
        """Check that the servers respond to checks and accept changes (a replica without its primary does not).

        Raises:
            LimiterUnavailable: If they do not.
        """

    @override
    async def record_failure(self, bucket: str) -> int | None:
        blocked_s = self.known_block_s(bucket)
        if blocked_s is None:
            blocked_ms = await self._record_failure(bucket)
            if blocked_ms == 0:
                return None
            if blocked_ms < 0:
                self._leases.forget_address(bucket)
                await self._outlast_leases()
                return 0
            blocked_s = ceil_s(blocked_ms)
            self._cache_block(bucket, blocked_s)
        return blocked_s

    @abstractmethod
    def _record_failure(self, bucket: str) -> Awaitable[int]:
        """Return the reply of ``lua/fail.lua`` for an address."""

    @override
    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        await self._outlast_leases(await self._bump(self._holder_names(key_id, owner_id)[0]))

    @override
    async def bump_owner_generation(self, owner_id: str) -> None:
        await self._outlast_leases(await self._bump(self._holder_names("", owner_id)[1]))

    async def _outlast_leases(self, recorded_ms: int = 0) -> None:
        """Wait until no lease is alive, on any worker, that was granted before now.

        Args:
            recorded_ms: Milliseconds until the latest lease ends that Redis knows of. Another process may have a larger
                ``lease_ms``; a server that has lost its memory knows nothing.
        """
        await asyncio.sleep(outlast_s(self._lease_ms, recorded_ms))

    @override
    async def read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> list[UsageCount]:
        await self._return_leases()  # so that what this worker admitted is counted
        found: list[UsageCount] = []
        for start in range(0, len(wanted), MAX_USAGE_KEYS):
            some = wanted[start : start + MAX_USAGE_KEYS]
            replies = await self._read_usage(some, forget_before)
            for one, reply in zip(some, replies, strict=True):
                found += decode_usage(one.key_id, reply)
        return found

    @abstractmethod
    async def _read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> Sequence[Sequence[Any]]:
        """Return the reply of ``lua/usage.lua`` for each of at most ``MAX_USAGE_KEYS`` keys."""

    def _prepare_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> ScriptArgs:
        """Return the keys and arguments of ``lua/usage.lua``."""
        names = [self._holder_names(one.key_id, one.owner_id)[0] for one in wanted]
        hours = ["" if one.hour is None else one.hour for one in wanted]
        return names, [forget_before, self._other_units, *hours]

    @abstractmethod
    async def _bump(self, name: str) -> int:
        """Replace the generation in the hash of a key or of an owner. Return the reply of ``lua/changed.lua``."""

    @override
    async def read_ticket(self, key_id: str, secret_id: int) -> str | None:
        ticket: str | bytes = await self._exchange_ticket(self._prepare_ticket(key_id, secret_id, ""))
        return (ticket if isinstance(ticket, str) else ticket.decode("ascii", "replace")) or None

    @override
    async def write_ticket(self, key_id: str, secret_id: int, ticket: str) -> None:
        await self._exchange_ticket(self._prepare_ticket(key_id, secret_id, ticket))

    def _prepare_ticket(self, key_id: str, secret_id: int, ticket: str) -> ScriptArgs:
        """Return the keys and arguments of ``lua/ticket.lua``."""
        return [f"{self._name(key_id)}:t{secret_id}"], [KEEP_TICKETS_S, ticket]

    @abstractmethod
    async def _exchange_ticket(self, prepared: ScriptArgs) -> Any:
        """Return the reply of ``lua/ticket.lua``."""

    @override
    async def find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        found: list[str] = []
        for start in range(0, len(holders), MAX_GENERATIONS):
            epoch = self._epoch
            replies = await self._find_generations(holders[start : start + MAX_GENERATIONS])
            # If the epoch changed during the call, it is not known to which one the replies belong.
            found += [f"{epoch}:{generation}" if epoch == self._epoch else "" for generation in replies]
        return found

    @abstractmethod
    async def _find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        """Return the replies of ``lua/generations.lua`` for at most ``MAX_GENERATIONS`` keys."""

    @override
    async def unblock(self, bucket: str) -> bool:
        was_blocked = await self._unblock(bucket)
        self._known_blocks.pop(bucket, None)
        return was_blocked

    @abstractmethod
    async def _unblock(self, bucket: str) -> bool:
        """Delete a block and the failed attempts. Return whether there was a block."""

    def _blocks_on(self, client: Redis) -> RedisBlocks:
        return RedisBlocks(client, self._namespace, self._timeout_s, self._policy.block_for_ms, self._clock)

    @abstractmethod
    async def server_info(self) -> ServerInfo:
        """Return version and response time of the server.

        Raises:
            LimiterUnavailable: If it does not respond in time, or rejects the commands.
        """

    def _on_error(self, question: LimitCheck, error: LimiterUnavailable) -> Decision:
        if self.on_outage is None:
            raise error
        return self.on_outage(question, error)

    def _prepare(self, questions: Sequence[LimitCheck], plan: Plan, record: CallRecord | None = None) -> ScriptArgs:
        """Return the keys and arguments of ``lua/take.lua``. Call it immediately before they are sent.

        Args:
            questions: The questions.
            plan: What the call says about leases: returns come before the questions, and grants after them.
            record: Where the answer is stored if the call may be sent twice.
        """
        has_record = record is not None and record.is_used
        # The first word is different in each call of each worker. It need not be secret.
        fresh = f"{self._nonce}{next(self._numbers):x}"
        flags = ("rm" if self.signs else "m") if has_record else "r" if self.signs else ""
        head = (self._now_ms(), fresh, flags, KEEP_S, self._policy.block_for_ms)
        now_ms = int((self._clock or time.time)() * 1000)
        args = TakeArgs(head, self._limits, now_ms, self._namespace, self._holder_names, self._epoch)
        # It has a name only if it was also in the first call. Otherwise that may have been executed, and nobody knows.
        self._leases.mark_sent(plan, self._epoch, is_repeatable=record is not None and record.name != "")
        args.add_returns(plan)
        args.add_questions(questions)
        args.add_asks(plan, self._lease_ms)
        if record is not None and has_record:
            # In the slot of the other names: after that of the key of the first question.
            record.name = record.name or f"{args.names[1] if args.names else self._namespace}:{fresh}"
            args.names.append(record.name)
        return args.finish()

    def _receive(self, questions: Sequence[LimitCheck], plan: Plan, reply: Sequence[Any]) -> list[Decision]:
        """Return the decisions in a reply of ``lua/take.lua``, and take the leases in it."""
        if len(reply) == 1:
            # The first try was carried out. Its leases belong to a connection that was lost.
            (first,) = reply
            self._leases.fail(plan)
            last = len(first) - 5 * len(plan.asks)
            return self._decide(questions, first[last - 5 * len(questions) : last])
        first, last = 5 * (len(plan.returned) + len(plan.counted)), len(reply) - 5 * len(plan.asks)
        decisions = self._decide(questions, reply[first:last])
        return self._leases.receive(questions, decisions, plan, reply[last:], self._epoch)

    def _holder_names(self, key_id: str, owner_id: str | None) -> tuple[str, str]:
        """Return the names of the hashes of a key and of its owner."""
        return f"{self._namespace}:{{{key_id}}}", f"{self._namespace}:{{{owner_tag(owner_id or '')}}}"

    def _decide(self, questions: Sequence[LimitCheck], reply: Sequence[Any]) -> list[Decision]:
        """Return the decisions in a reply of ``lua/take.lua``."""
        return read_decisions(questions, reply, self._limits, self._epoch)

    def _prepare_failures(self, buckets: Sequence[str]) -> ScriptArgs:
        """Return keys and arguments of ``lua/fail.lua``."""
        policy = self._policy
        names = [self._name(bucket) for bucket in buckets]
        return names, [self._now_ms(), policy.block_after_failures, policy.failure_window_ms, policy.block_for_ms]

    def _prepare_change(self, name: str) -> ScriptArgs:
        """Return keys and arguments of ``lua/changed.lua``, for the hash of a key or of an owner."""
        return [name], [self._now_ms(), secrets.token_hex(8), KEEP_S]

    def _prepare_generations(self, holders: Sequence[tuple[str, str]]) -> ScriptArgs:
        """Return keys and arguments of ``lua/generations.lua``."""
        names = [name for key_id, owner_id in holders for name in self._holder_names(key_id, owner_id)]
        return names, [secrets.token_hex(8), "r" if self.signs else "", KEEP_S]

    def _name(self, tag: str) -> str:
        """Return the name of the hash of an address. The tag determines its slot in a cluster."""
        return f"{self._namespace}:{{{tag}}}"

    def _now_ms(self) -> str | int:
        return "" if self._clock is None else int(self._clock() * 1000)

    @override
    def known_block_s(self, bucket: str) -> int | None:
        return self._known_blocks.left_s(bucket)

    def _cache_block(self, bucket: str, blocked_s: int) -> None:
        self._known_blocks.add(bucket, blocked_s)
        self._leases.forget_address(bucket)  # an allowance does not consider known blocks
