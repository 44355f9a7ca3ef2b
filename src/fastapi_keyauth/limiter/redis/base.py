"""What the limiters on Redis share: key names, script arguments, replies, generations and recent blocks."""

import base64
import hashlib
import itertools
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from fastapi_keyauth.domain.limits import Cost, LimitSet
from fastapi_keyauth.errors import LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Policy, Verdict, ceil_s
from fastapi_keyauth.limiter.redis.batcher import Answered
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.limiter.redis.scripts import ScriptArgs
from fastapi_keyauth.limiter.redis.server_info import ServerInfo
from fastapi_keyauth.settings.checks import CheckWarning
from fastapi_keyauth.settings.redis_urls import RedisUrl, parse_redis_url
from fastapi_keyauth.settings.urls import masked_url

KEEP_S = 7200
"""Seconds for which the hash of a key or owner is kept at least, and beyond the end of each window in it."""
START_TRIES = 5
"""Looks at Redis before a start takes it for away: a machine that starts workers is busy."""
KNOWN_BLOCK_S = 5.0
"""Seconds for which a worker remembers a block, so that a flood from a blocked address costs no trips. Short, so that
a block that is lifted is soon lifted everywhere."""
_MAX_KNOWN_BLOCKS = 10_000
_VERDICTS = tuple(Verdict)


@lru_cache(maxsize=4096)
def encode_limits(limits: LimitSet, cost: Cost) -> str:
    """Return limits and what a request costs of each, as ``lua/take.lua`` reads them; in short, as most are alike."""
    parts = []
    for position, (limit, units) in enumerate(zip(limits.all, limits.costs(cost), strict=True)):
        kind = "s" if limit.is_sliding else "f"
        kind = kind if position < len(limits.key) else kind.upper()
        parts.append(f"{limit.counter_id} {limit.limit} {limit.window_ms} {units} {kind};")
    return "".join(parts)


@lru_cache(maxsize=4096)
def owner_tag(owner_id: str) -> str:
    """Return what an owner is named by in Redis: short, without the characters that mean something there."""
    return base64.urlsafe_b64encode(hashlib.blake2b(owner_id.encode(), digest_size=12).digest()).decode()


class Unsettled(LimiterUnavailable):
    """The server took the change, but may be just being replaced. That is no outage: questions are answered."""


class RedisLimiterBase(ABC):
    """A limiter that counts in Redis, on Redis's clock, for many workers.

    Args:
        url: see ``redis_urls``.
        namespace: first part of every name in Redis.
        timeout_s: seconds to wait for an answer.
        clock: seconds since 1970, in place of Redis's own clock; for tests.
        answered: told of each call that carried questions of requests.

    Attributes:
        rescue: answers a question that Redis did not; without it ``take`` raises. A function, and no ``except``
            around an ``await``: one coroutine less to wake up for every request.
        fails_over: whether another server may take over, so that one that was lost sight of must be believed no more.
        where: the URL, to be shown.
        signs: whether the server that gives a generation out signs it. Without, a generation is doubted when the
            connection is made anew.
    """

    rescue: Callable[[LimitCheck, LimiterUnavailable], Decision] | None = None
    fails_over: bool = False
    signs: ClassVar[bool] = False

    def __init__(
        self,
        url: str,
        policy: Policy,
        namespace: str,
        timeout_s: float,
        clock: Callable[[], float] | None = None,
        answered: Answered | None = None,
    ) -> None:
        self.where = masked_url(url)
        try:
            self._place: RedisUrl = parse_redis_url(url)
        except ValueError as error:
            raise SetupError(f"The Redis URL {self.where} is wrong: it {error}.") from None
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
        """ClientFactory that have not connected yet. Made anew at each start, as they belong to one event loop."""
        # Here and not above: workers that are forked from one process must not give out the same generations.
        self._nonce = secrets.token_hex(8)
        self._numbers = itertools.count()

    def invalidate_generations(self) -> None:
        """Take no row for current that was proven before: a server that we lost sight of may have lost changes (a
        failover, a restart), or may not have been told of them.
        """
        self._epoch += 1

    async def start(self) -> None:
        """Connect. After a ``LimiterUnavailable`` the limiter can be used all the same: it connects once it can.

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
    async def close(self) -> None:
        """See ``Limiter``."""

    @abstractmethod
    async def probe(self) -> None:
        """See that questions are answered and changes taken (a replica that lost its primary takes none). Raises
        ``LimiterUnavailable``.
        """

    @abstractmethod
    def check(self, ask: LimitCheck) -> Awaitable[Decision]:
        """See ``Limiter``."""

    async def record_failure(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        blocked_s = self.known_block_s(bucket)
        if blocked_s is None:
            blocked_ms = await self._record_failure(bucket)
            if blocked_ms <= 0:
                return 0 if blocked_ms else None
            blocked_s = ceil_s(blocked_ms)
            self._remember_block(bucket, blocked_s)
        return blocked_s

    @abstractmethod
    def _record_failure(self, bucket: str) -> Awaitable[int]:
        """What ``lua/fail.lua`` answers for an address."""

    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        """See ``Limiter``."""
        await self._bump(self._holder_names(key_id, owner_id)[0])

    async def bump_owner_generation(self, owner_id: str) -> None:
        """See ``Limiter``."""
        await self._bump(self._holder_names("", owner_id)[1])

    @abstractmethod
    async def _bump(self, name: str) -> None:
        """Give the key or owner of this hash another generation."""

    @abstractmethod
    async def blocks(self) -> dict[str, int]:
        """See ``Limiter``."""

    async def unblock(self, bucket: str) -> bool:
        """See ``Limiter``."""
        was_blocked = await self._unblock(bucket)
        self._known_blocks.pop(bucket, None)
        return was_blocked

    @abstractmethod
    async def _unblock(self, bucket: str) -> bool:
        """Forget a block and failed attempts; whether there was a block."""

    @abstractmethod
    async def run_checks(self) -> list[CheckWarning]:
        """See ``Limiter``."""

    @abstractmethod
    async def facts(self) -> ServerInfo:
        """What the server says of itself. Raises ``LimiterUnavailable``."""

    def _on_error(self, ask: LimitCheck, error: LimiterUnavailable) -> Decision:
        if self.rescue is None:
            raise error
        return self.rescue(ask, error)

    def _prepare(self, asks: Sequence[LimitCheck]) -> ScriptArgs:
        """Names and arguments of ``lua/take.lua``."""
        names: list[str] = []
        # Another one each time, on whatever worker; nobody has to be kept from guessing it.
        fresh = f"{self._nonce}{next(self._numbers):x}"
        args: list[str | int] = [self._now_ms(), fresh, "r" if self.signs else "", KEEP_S, self._policy.block_for_ms]
        epoch = f"{self._epoch}:"
        length = len(epoch)
        for key_id, bucket, limits, cost, generation, age_s, is_fresh, owner_id, charge in asks:
            key, owner = self._holder_names(key_id, owner_id)
            names += (key if bucket is None else f"{self._namespace}:{{{bucket}}}", key, owner)
            # A generation of another epoch proves nothing; "-" equals none that is ever given out.
            proof = generation[length:] if generation[:length] == epoch else "-"
            how = (2 if is_fresh else 0 if age_s is None else 1) + (0 if cost is None else 3)
            if bucket is not None:
                how += 6
            args += (proof or "-", "" if cost is None else encode_limits(limits, cost), how)
            if charge is not None:
                args[-1] = how + 12
                names.append(f"{owner}:{charge.id}")
                args += (charge.keep_s * 1000, "" if charge.actual is None else " ".join(map(str, charge.actual)))
        return names, args

    def _holder_names(self, key_id: str, owner_id: str | None) -> tuple[str, str]:
        """The hashes of a key and of its owner."""
        return f"{self._namespace}:{{{key_id}}}", f"{self._namespace}:{{{owner_tag(owner_id or '')}}}"

    def _decide(self, reply: Sequence[Any]) -> list[Decision]:
        """What ``lua/take.lua`` has answered."""
        epoch = f"{self._epoch}:"
        fields = iter(reply)
        return [
            # As Decision(...) does it, without the function of Python's around it: one for each request.
            tuple.__new__(
                Decision,
                (
                    _VERDICTS[verdict],
                    epoch + generation if generation else "",
                    wait_s,
                    hour,
                    math.inf,  # no change escapes a generation of Redis
                    states,
                ),
            )
            for verdict, generation, hour, wait_s, states in zip(*[fields] * 5, strict=True)
        ]

    def _prepare_failures(self, buckets: Sequence[str]) -> ScriptArgs:
        """Names and arguments of ``lua/fail.lua``."""
        policy = self._policy
        names = [self._name(bucket) for bucket in buckets]
        return names, [self._now_ms(), policy.block_after_failures, policy.failure_window_ms, policy.block_for_ms]

    def _prepare_change(self, name: str) -> ScriptArgs:
        """Names and arguments of ``lua/changed.lua``, for the hash of a key or of an owner."""
        return [name], [secrets.token_hex(8), KEEP_S]

    def _name(self, tag: str) -> str:
        """The hash of an address; its tag keeps it in one slot of a cluster."""
        return f"{self._namespace}:{{{tag}}}"

    def _now_ms(self) -> str | int:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _local_now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()

    def known_block_s(self, bucket: str) -> int | None:
        """See ``Limiter``."""
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
