"""The limiter of many workers on many hosts: Redis or Valkey, from 6.2 on."""

import contextlib
import itertools
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastapi_keyauth.dangers import Danger
from fastapi_keyauth.errors import LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.base import HOUR_S, Ask, Decision, Policy, Verdict, ceil_s
from fastapi_keyauth.limiter.batch import Answered, Batcher, Landed
from fastapi_keyauth.limiter.blocks import RedisBlocks
from fastapi_keyauth.limiter.calls import Caller, Prepared, Script
from fastapi_keyauth.limiter.facts import ServerFacts, read_facts
from fastapi_keyauth.limiter.inspection import inspect_server
from fastapi_keyauth.limiter.wire import Wire
from fastapi_keyauth.settings import masked_url

KEEP_S = 7200
"""Seconds for which a key's hash is kept: the hour that is counted and the one that slides out."""
KNOWN_BLOCK_S = 5.0
"""Seconds for which a worker remembers a block, so that a flood from a blocked address costs no trips. Short, so that
a block that is lifted is soon lifted everywhere."""
_MAX_KNOWN_BLOCKS = 10_000
_PROBE = Ask("probe", "probe")
_VERDICTS = tuple(Verdict)


class RedisLimiter:
    """Counts in Redis, on Redis's clock, in one script call for all that wait.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        namespace: first part of every name in Redis.
        timeout_s: seconds to wait for an answer.
        clock: seconds since 1970, in place of Redis's own clock; for tests.
        answered: told of each call that carried questions of requests.

    Attributes:
        rescue: answers a question that Redis did not; without it :meth:`take` raises. A function, and no ``except``
            around an ``await``: one coroutine less to wake up for every request.
    """

    rescue: Callable[[Ask, LimiterUnavailable], Decision] | None = None

    def __init__(
        self,
        url: str,
        policy: Policy,
        namespace: str,
        timeout_s: float,
        clock: Callable[[], float] | None = None,
        answered: Answered | None = None,
    ) -> None:
        self._url = url
        self._policy = policy
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._clock = clock
        self._answered = answered
        self._epoch = 0
        self._known_blocks: dict[str, tuple[float, float]] = {}
        """Bucket to (believed until, blocked until), on the local clock."""
        self._open()

    def _open(self) -> None:
        """Clients that have not connected yet. Made anew at each start, as they belong to one event loop."""
        # Here and not above: workers that are forked from one process must not give out the same generations.
        self._nonce = secrets.token_hex(8)
        self._numbers = itertools.count()
        try:
            # Units go over a connection of their own: when that one is made anew, the server may be another one.
            self._units = self._client(redis_connect_func=self._connected)
            self._control = self._client()
        except (RedisError, ValueError):
            raise SetupError(f"The Redis URL {masked_url(self._url)} cannot be understood.") from None
        self._take = Wire(self._units, Script("take"), self._timeout_s)
        self._fail = Wire(self._control, Script("fail"), self._timeout_s)
        self._changed = Caller(self._control, Script("changed"), self._timeout_s)
        self._asks: Batcher[Ask, Decision] = Batcher(self._send_asks, self._rescue, self._answered)
        self._failures: Batcher[str, int] = Batcher(self._send_failures)

    def _client(self, **options: Any) -> Redis:
        client: Redis = Redis.from_url(
            self._url,
            # wire.py and calls.py take the time, once for all that a call does, connecting included.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),  # what to do about an outage is decided in one place: outage.py
            decode_responses=True,
            protocol=2,  # RESP2 serves for integers and strings, and spares old servers a HELLO
            **options,
        )
        return client

    async def _connected(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        self.doubt()

    def doubt(self) -> None:
        """Take no row for current that was proven before: a server that we lost sight of may have lost changes (a
        failover, a restart), or may not have been told of them.
        """
        self._epoch += 1

    async def start(self) -> None:
        """See :class:`Limiter`."""
        self._open()
        try:
            await self._touch()
        except LimiterUnavailable as error:
            await self.close()
            raise SetupError(f"The Redis server at {masked_url(self._url)} does not answer ({error}).") from None

    async def close(self) -> None:
        """See :class:`Limiter`."""
        await self._asks.close()
        await self._failures.close()
        self._take.close()
        self._fail.close()
        await self._units.aclose()
        await self._control.aclose()

    async def is_writable(self) -> bool:
        """Whether the server runs scripts that write (a replica that lost its primary does not)."""
        try:
            await self._touch()
        except LimiterUnavailable:
            return False
        return True

    async def _touch(self) -> None:
        """See that both work: a change over any connection, and a question over the one that requests wait for."""
        await self._changed.run(lambda: ([f"{self._namespace}:probe"], ["-", 1]))
        await self._asks.ask(_PROBE)

    def _rescue(self, ask: Ask, error: LimiterUnavailable) -> Decision:
        if self.rescue is None or ask is _PROBE:
            raise error
        return self.rescue(ask, error)

    def take(self, ask: Ask) -> Awaitable[Decision]:
        """See :class:`Limiter`."""
        return self._asks.ask(ask)

    async def fail(self, bucket: str) -> int | None:
        """See :class:`Limiter`."""
        blocked_s = self.known_block_s(bucket)
        if blocked_s is None:
            blocked_ms = await self._failures.ask(bucket)
            if blocked_ms <= 0:
                return 0 if blocked_ms else None
            blocked_s = ceil_s(blocked_ms)
            self._remember_block(bucket, blocked_s)
        return blocked_s

    async def changed(self, key_id: str) -> None:
        """See :class:`Limiter`."""
        await self._changed.run(lambda: ([self._name(key_id)], [secrets.token_hex(8), KEEP_S]))

    async def blocks(self) -> dict[str, int]:
        """See :class:`Limiter`."""
        async with self._own_client() as client:
            return await self._blocks(client).find()

    async def unblock(self, bucket: str) -> bool:
        """See :class:`Limiter`."""
        async with self._own_client() as client:
            was_blocked = await self._blocks(client).lift(bucket)
        self._known_blocks.pop(bucket, None)
        return was_blocked

    def _blocks(self, client: Redis) -> RedisBlocks:
        return RedisBlocks(client, self._namespace, self._timeout_s, self._clock)

    async def find_dangers(self) -> list[Danger]:
        """See :class:`Limiter`."""
        async with self._own_client() as client:
            return await inspect_server(client, self._timeout_s, None if self._clock else time.time)

    async def facts(self) -> ServerFacts:
        """What the server says of itself. Raises ``LimiterUnavailable``."""
        async with self._own_client() as client:
            return await read_facts(client, self._timeout_s)

    @contextlib.asynccontextmanager
    async def _own_client(self) -> AsyncIterator[Redis]:
        """For plain commands: an answer that comes too late must not be taken for that to another question."""
        client = self._client()
        try:
            yield client
        finally:
            await client.aclose()

    def _send_asks(self, asks: list[Ask], landed: Landed[Decision], since: float) -> None:
        def received(reply: Any) -> None:
            if isinstance(reply, LimiterUnavailable):
                landed(reply)
                return
            epoch = f"{self._epoch}:"
            fields = iter(reply)
            decisions = [
                Decision(
                    _VERDICTS[verdict],
                    epoch + generation if generation else "",
                    None if remaining < 0 else remaining,
                    (hour + 1) * HOUR_S,
                    wait_s,
                    hour,
                    math.inf,  # no change escapes a generation of Redis
                )
                for verdict, generation, remaining, hour, wait_s in zip(*[fields] * 5, strict=True)
            ]
            if Verdict.BLOCKED in reply[::5]:
                for ask, decision in zip(asks, decisions, strict=True):
                    if decision.verdict is Verdict.BLOCKED and ask.bucket is not None:
                        self._remember_block(ask.bucket, decision.wait_s)
            landed(decisions)

        self._take.call(lambda: self._prepare(asks), received, since)

    def _prepare(self, asks: list[Ask]) -> Prepared:
        names: list[str] = []
        algorithm = "s" if self._policy.algorithm == "sliding_window" else "f"
        # Another one each time, on whatever worker; nobody has to be kept from guessing it.
        fresh = f"{self._nonce}{next(self._numbers):x}"
        args: list[str | int] = [self._now_ms(), fresh, algorithm, KEEP_S]
        epoch = f"{self._epoch}:"
        length = len(epoch)
        for key_id, bucket, limit, units, generation, age_s, is_fresh in asks:
            name = f"{self._namespace}:{{{key_id}}}"
            names += (name if bucket is None else f"{self._namespace}:{{{bucket}}}", name)
            # A generation from before a reconnect proves nothing; "-" equals none that is ever given out.
            proof = generation[length:] if generation[:length] == epoch else "-"
            row = 2 if is_fresh else 0 if age_s is None else 1
            how = row + 3 * units + (0 if bucket is None else 6)
            args += (proof or "-", -1 if limit is None else limit, how)
        return names, args

    def _send_failures(self, buckets: list[str], landed: Landed[int], since: float) -> None:
        policy = self._policy
        names = [self._name(bucket) for bucket in buckets]
        args = [self._now_ms(), policy.block_after_failures, policy.failure_window_ms, policy.block_for_ms]
        self._fail.call(lambda: (names, args), landed, since)

    def _name(self, tag: str) -> str:
        """The hash of a key or of an address; its tag keeps it in one slot of a cluster."""
        return f"{self._namespace}:{{{tag}}}"

    def _now_ms(self) -> str | int:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _local_now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()

    def known_block_s(self, bucket: str) -> int | None:
        """See :class:`Limiter`."""
        known = self._known_blocks.get(bucket)
        if known is None:
            return None
        believed_until, blocked_until = known
        now = self._local_now()
        if now >= believed_until:
            del self._known_blocks[bucket]
            return None
        return max(1, math.ceil(blocked_until - now))

    def _remember_block(self, bucket: str, blocked_s: int) -> None:
        # Whole seconds are rounded up: believed for one less, so that a block never outlives itself here.
        believed_s = min(KNOWN_BLOCK_S, blocked_s - 1)
        if believed_s <= 0:
            return
        while len(self._known_blocks) >= _MAX_KNOWN_BLOCKS:
            del self._known_blocks[next(iter(self._known_blocks))]
        now = self._local_now()
        self._known_blocks[bucket] = (now + believed_s, now + blocked_s)
