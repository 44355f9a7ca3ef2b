"""The limiter on a cluster of Redis or Valkey, version 6.2 or later."""

import asyncio
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from fastapi_keyauth.concurrency.stall_tolerant_timeout import stall_tolerant_timeout
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.leases.addresses import address_check
from fastapi_keyauth.limiter.leases.terms import Plan
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Verdict, ceil_s
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.batcher import MAX_POSTPONED
from fastapi_keyauth.limiter.redis.encoding import owner_tag
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.limiter.redis.probe import PROBE
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs
from fastapi_keyauth.limiter.redis.server_info import ServerInfo, check_server, read_server_info
from fastapi_keyauth.limiter.redis.slots import SlotRouter
from fastapi_keyauth.limiter.redis.take_args import CallRecord
from fastapi_keyauth.settings.check_warnings import CheckWarning

UNBLOCKED = Decision(Verdict.STALE)
"""The answer of a single server to ``address_check``, if the address is not blocked."""
Answer = TypeVar("Answer")
Asked = TypeVar("Asked", bound=tuple[Any, ...])


class ClusterLimiter(RedisLimiterBase):
    """Counters on the nodes of a cluster: those of an address in its own slot, those of a key in the slot of its owner.

    The block is checked first; the key is checked only if the address is not blocked. If both were checked
    concurrently, a blocked request would have to return its unit, for which another request may have been refused.
    """

    fails_over = True
    signs: ClassVar[bool] = True

    @override
    def _open(self) -> None:
        super()._open()
        self._router = SlotRouter(self._place, self._timeout_s)
        self._take = LuaScript("take_others", "take")
        self._blocked = LuaScript("blocked")
        self._failing = LuaScript("fail")
        self._changing = LuaScript("changed")
        self._usage = LuaScript("usage", uses_time=False)
        self._generations = LuaScript("generations", uses_time=False)
        self._unblocking = LuaScript("unblock")
        self._tasks: set[asyncio.Task[None]] = set()
        self._tickets = LuaScript("ticket", uses_time=False)

    @override
    async def close(self) -> None:
        await self._return_leases()
        await self._return_leases()  # those that a renewal in flight has brought
        await self._router.close()

    @override
    async def probe(self) -> None:
        """Check that every slot is assigned, and that each primary accepts changes and answers checks."""
        await self._in_time(self._probe_all())

    async def _probe_all(self) -> None:
        await self._router.refresh()
        names = self._router.names_on_all(lambda number: self._name(f"probe{number}"))
        found = await asyncio.gather(*map(self._probe_one, names), return_exceptions=True)
        for problem in found:
            if problem is not None:
                raise problem

    async def _probe_one(self, name: str) -> None:
        await self._router.call(self._changing, ([name], ["", "-", 1]))
        await self._router.call(self._blocked, self._block_args(name))
        _, args = self._prepare([PROBE._replace(bucket=None)], Plan())
        await self._router.call(self._take, ([name, name, f"{name}:owner", f"{name}:charge"], args))

    @override
    async def check(self, question: LimitCheck) -> Decision:
        for _ in range(1 + MAX_POSTPONED):
            decision = await self._check_once(question)
            if decision.verdict is not Verdict.WAITING:
                return decision
            await asyncio.sleep(decision.wait_s / 1000)
        raise LimiterUnavailable("a question was postponed too often")

    async def _check_once(self, question: LimitCheck) -> Decision:
        began_at = 0.0 if self._answered is None else time.perf_counter()
        problem: str | None = None
        try:
            return await self._in_time(self._check_in_order(question))
        except LimiterUnavailable as error:
            problem = str(error).partition(":")[0]
            return self._on_error(question, error)
        finally:
            if self._answered is not None:
                self._answered(1, time.perf_counter() - began_at, problem)

    async def _check_in_order(self, question: LimitCheck) -> Decision:
        sent_at = self._leases.now()
        if question.bucket is not None:
            blocked_s = await self._find_block(question.bucket)
            if blocked_s:
                return Decision(Verdict.BLOCKED, wait_s=blocked_s)
        if question.owner_id is None and question.age_s is None:
            return Decision(Verdict.STALE, share_s=math.inf)  # the slot depends on the owner, whom only the row names
        questions = [question._replace(bucket=None)]
        owner_id = question.owner_id or ""
        (decision,) = await self._take_leasing(questions, owner_id, self._leases.plan(questions, (owner_id,)))
        self._leases.note_unblocked(question, decision, sent_at)
        return decision

    async def _find_block(self, bucket: str) -> int:
        """Return the seconds for which an address is still blocked. 0: it is not."""
        blocked_ms = await self._router.call(self._blocked, self._block_args(self._name(bucket)))
        if not blocked_ms:
            return 0
        blocked_s = ceil_s(blocked_ms)
        self._cache_block(bucket, blocked_s)
        return blocked_s

    async def _take_leasing(self, questions: list[LimitCheck], owner_id: str, plan: Plan) -> list[Decision]:
        """Make a call about one owner. If its connection is lost, it is repeated; without a record, without leases."""
        record = CallRecord(is_used=self._router.is_unsure(self._holder_names("", owner_id)[1]))
        without_record = partial(self._prepare_without_record, questions, plan)
        try:
            if record.is_used:
                prepared = self._prepare(questions, plan, record)
                reply = await self._router.call(self._take, prepared, prepared, without_record)
            else:
                reply = await self._router.call(self._take, *without_record())
        except BaseException:  # also if the request was cancelled: the call may have been carried out
            self._leases.fail(plan)
            raise
        size = 5 * (len(plan.returned) + len(plan.counted) + len(questions) + len(plan.asks))
        if len(reply) not in (1, size):  # repeated
            self._leases.fail(plan)
            return self._decide(questions, reply)
        return self._receive(questions, plan, reply)

    def _prepare_without_record(self, questions: list[LimitCheck], plan: Plan) -> tuple[ScriptArgs, ScriptArgs]:
        """Return keys and arguments of a call, and those of its repetition."""
        prepared = self._prepare(questions, plan)
        return prepared, self._prepare(questions, Plan()) if plan.returns or plan.asks else prepared

    @override
    def _send_plan(self, plan: Plan) -> None:
        if plan.returns:
            task = asyncio.create_task(self._carry_out(plan), name="keyauth-leases")
            self._tasks.add(task)  # the event loop keeps no reference
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, plan: Plan) -> None:
        """Return and renew leases, those of each owner by a call to its slot."""
        by_owner: defaultdict[str, Plan] = defaultdict(Plan)
        for lease in plan.returns:
            by_owner[lease.ask.owner_id].returns.append(lease)
        for ask in plan.asks:
            by_owner[ask.owner_id].asks.append(ask)
        calls = [self._in_time(self._take_leasing([], owner_id, part)) for owner_id, part in by_owner.items()]
        checks = [self._in_time(self._check_address(bucket)) for bucket in plan.buckets]
        await asyncio.gather(*calls, *checks, return_exceptions=True)  # requests and probes notice an outage
        self._leases.settle(plan)

    async def _check_address(self, bucket: str) -> None:
        sent_at = self._leases.now()
        if not await self._find_block(bucket):
            self._leases.note_unblocked(address_check(bucket), UNBLOCKED, sent_at)

    def _block_args(self, name: str) -> ScriptArgs:
        """Return keys and arguments of ``lua/blocked.lua``."""
        return [name], [self._now_ms(), self._policy.block_for_ms]

    @override
    async def _record_failure(self, bucket: str) -> int:
        return await self._in_time(self._fail_once(bucket))

    async def _fail_once(self, bucket: str) -> int:
        (blocked_ms,) = await self._router.call(self._failing, self._prepare_failures([bucket]))
        return int(blocked_ms)

    @override
    async def _bump(self, name: str) -> int:
        recorded_ms: int = await self._in_time(self._router.call(self._changing, self._prepare_change(name)))
        return recorded_ms

    @override
    async def _exchange_ticket(self, prepared: ScriptArgs) -> Any:
        return await self._in_time(self._router.call(self._tickets, prepared))

    @override
    async def _find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        return await self._call_by_owner(self._generations, holders, self._prepare_generations)

    @override
    async def _read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> list[list[Any]]:
        return await self._call_by_owner(self._usage, wanted, lambda some: self._prepare_usage(some, forget_before))

    async def _call_by_owner(
        self, script: LuaScript, asked: Sequence[Asked], prepare: Callable[[Sequence[Asked]], ScriptArgs]
    ) -> list[Any]:
        """Return one reply for each key. All keys of a call must be in one slot, so each owner has a call.

        Args:
            script: The script.
            asked: Tuples that begin with the id of a key and of its owner.
            prepare: Returns keys and arguments of a call.
        """
        by_owner: dict[str, list[Asked]] = {}
        for one in asked:
            by_owner.setdefault(one[1], []).append(one)

        async def call_all() -> list[Any]:
            calls = (self._router.call(script, prepare(some)) for some in by_owner.values())
            return await asyncio.gather(*calls)

        replies = await self._in_time(call_all())
        grouped = itertools.chain.from_iterable(by_owner.values())
        found = dict(zip(grouped, itertools.chain.from_iterable(replies), strict=True))
        return [found[one] for one in asked]

    @override
    def _holder_names(self, key_id: str, owner_id: str | None) -> tuple[str, str]:
        owner = f"{self._namespace}:{{{owner_tag(owner_id or '')}}}"
        return f"{owner}:{key_id}", owner

    @override
    async def blocks(self) -> dict[str, int]:
        await self._in_time(self._router.refresh())
        found: dict[str, int] = {}
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                found |= await self._blocks_on(client).find()
        return found

    @override
    async def _unblock(self, bucket: str) -> bool:
        prepared = ([self._name(bucket)], [self._now_ms()])
        blocked_ms: int = await self._in_time(self._router.call(self._unblocking, prepared))
        return blocked_ms > 0

    @override
    async def run_checks(self) -> list[CheckWarning]:
        """Check every primary. A warning about several nodes is returned once."""
        found: dict[str, CheckWarning] = {}
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                for warning in await check_server(client, self._timeout_s, None if self._clock else time.time):
                    found.setdefault(warning.code, warning)
        return list(found.values())

    @override
    async def server_info(self) -> ServerInfo:
        """Return version and response time of the slowest primary."""
        found = []
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                found.append(await read_server_info(client, self._timeout_s))
        if not found:
            raise LimiterUnavailable("no node of the cluster is known")
        slowest = max(found, key=lambda info: info.answer_ms)
        return slowest._replace(version=f"{slowest.version}, a cluster of {len(found)} primaries,")

    async def _in_time(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return the result of the work, which has the time of one call, redirections and second tries included."""
        try:
            async with stall_tolerant_timeout(self._timeout_s):
                return await work
        except LimiterUnavailable:
            raise
        except Exception as error:  # a timeout, or an answer of another shape from a server that is not Redis
            raise unavailable(error) from error
