"""The limiter of many workers on a cluster of Redis or Valkey, from 6.2 on."""

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from fastapi_keyauth.concurrency.stall_tolerant_timeout import stall_tolerant_timeout
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Verdict, ceil_s
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase, owner_tag
from fastapi_keyauth.limiter.redis.blocks import RedisBlocks
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs
from fastapi_keyauth.limiter.redis.server_info import ServerInfo, check_server, read_server_info
from fastapi_keyauth.limiter.redis.slots import SlotRouter
from fastapi_keyauth.settings.checks import CheckWarning

Answer = TypeVar("Answer")


class ClusterLimiter(RedisLimiterBase):
    """Counters on the nodes of a cluster: an address where its slot is, a key where the slot of its owner is.

    The block is asked about first, and the key only when it is known that there is none. Asked both at once, the unit
    of a request that turns out to be blocked would have to be given back, and might have refused another meanwhile.
    """

    fails_over = True
    signs: ClassVar[bool] = True

    def _open(self) -> None:
        super()._open()
        self._router = SlotRouter(self._place, self._timeout_s)
        self._take = LuaScript("take")
        self._blocked = LuaScript("blocked")
        self._failing = LuaScript("fail")
        self._changing = LuaScript("changed", uses_time=False)
        self._unblocking = LuaScript("unblock")

    async def close(self) -> None:
        """See ``Limiter``."""
        await self._router.close()

    async def probe(self) -> None:
        """See that every slot is somewhere, and that each primary takes changes and answers questions."""
        await self._in_time(self._touch_all())

    async def _touch_all(self) -> None:
        await self._router.refresh()
        names = self._router.names_on_all(lambda number: self._name(f"probe{number}"))
        found = await asyncio.gather(*map(self._touch_one, names), return_exceptions=True)
        for problem in found:
            if problem is not None:
                raise problem

    async def _touch_one(self, name: str) -> None:
        await self._router.call(self._changing, ([name], ["-", 1]))
        await self._router.call(self._blocked, self._block_args(name))
        _, args = self._prepare([LimitCheck("probe", None)])
        await self._router.call(self._take, ([name, name, name], args))

    async def check(self, ask: LimitCheck) -> Decision:
        """See ``Limiter``."""
        began_at = 0.0 if self._answered is None else time.perf_counter()
        problem: str | None = None
        try:
            return await self._in_time(self._take_in_order(ask))
        except LimiterUnavailable as error:
            problem = str(error).partition(":")[0]
            return self._on_error(ask, error)
        finally:
            if self._answered is not None:
                self._answered(1, time.perf_counter() - began_at, problem)

    async def _take_in_order(self, ask: LimitCheck) -> Decision:
        if ask.bucket is not None:
            blocked_ms = await self._router.call(
                self._blocked, ([self._name(ask.bucket)], [self._now_ms(), self._policy.block_for_ms])
            )
            if blocked_ms:
                blocked_s = ceil_s(blocked_ms)
                self._remember_block(ask.bucket, blocked_s)
                return Decision(Verdict.BLOCKED, wait_s=blocked_s)
            ask = ask._replace(bucket=None)
        if ask.owner_id is None and ask.age_s is None:
            return Decision(Verdict.STALE, share_s=math.inf)  # the slot is the owner's, whom only the row names
        (decision,) = self._decide(await self._router.call(self._take, self._prepare([ask])))
        return decision

    def _block_args(self, name: str) -> ScriptArgs:
        """Return keys and arguments of ``lua/blocked.lua``."""
        return [name], [self._now_ms(), self._policy.block_for_ms]

    async def _record_failure(self, bucket: str) -> int:
        return await self._in_time(self._fail_once(bucket))

    async def _fail_once(self, bucket: str) -> int:
        (blocked_ms,) = await self._router.call(self._failing, self._prepare_failures([bucket]))
        return int(blocked_ms)

    async def _bump(self, name: str) -> None:
        await self._in_time(self._router.call(self._changing, self._prepare_change(name)))

    def _holder_names(self, key_id: str, owner_id: str | None) -> tuple[str, str]:
        owner = f"{self._namespace}:{{{owner_tag(owner_id or '')}}}"
        return f"{owner}:{key_id}", owner

    async def blocks(self) -> dict[str, int]:
        """See ``Limiter``."""
        await self._in_time(self._router.refresh())
        found: dict[str, int] = {}
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                found |= await RedisBlocks(client, self._namespace, self._timeout_s, self._clock).find()
        return found

    async def _unblock(self, bucket: str) -> bool:
        prepared = ([self._name(bucket)], [self._now_ms()])
        blocked_ms: int = await self._in_time(self._router.call(self._unblocking, prepared))
        return blocked_ms > 0

    async def run_checks(self) -> list[CheckWarning]:
        """See ``Limiter``. One that several nodes show is said once."""
        found: dict[str, CheckWarning] = {}
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                for warning in await check_server(client, self._timeout_s, None if self._clock else time.time):
                    found.setdefault(warning.code, warning)
        return list(found.values())

    async def facts(self) -> ServerInfo:
        """See ``RedisLimiterBase``. The time is the slowest primary's."""
        found = []
        for address in self._router.primaries():
            async with self._router.borrow(address) as client:
                found.append(await read_server_info(client, self._timeout_s))
        if not found:
            raise LimiterUnavailable("no node of the cluster is known")
        slowest = max(found, key=lambda facts: facts.answer_ms)
        return slowest._replace(version=f"{slowest.version}, a cluster of {len(found)} primaries,")

    async def _in_time(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """The work, redirections and second tries included, within the time of one call."""
        try:
            async with stall_tolerant_timeout(self._timeout_s):
                return await work
        except LimiterUnavailable:
            raise
        except Exception as error:  # no time left, or an answer of another shape: something that is no Redis
            raise unavailable(error) from error
