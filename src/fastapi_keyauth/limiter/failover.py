"""The behavior during an outage of Redis, in one place: limit locally or deny, and recover without a restart."""

from collections.abc import Awaitable, Callable, Collection, Sequence

from typing_extensions import override

from fastapi_keyauth.concurrency.circuit_breaker import CircuitBreaker
from fastapi_keyauth.domain.usage import UsageCount, UsageOf
from fastapi_keyauth.errors import LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Allowance, Decision, LimitCheck, Limiter, Unsettled
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.errors import is_rejection
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.telemetry.observer import Observer

WATCH_EVERY_S = 1.0
"""Seconds between probes of servers that may fail over. A worker without requests would not notice that one hung, was
replaced, and recovered with what it knew before; it must lose its connection within the shortest time of a failover."""


class FailoverLimiter(Limiter):
    """A limiter on Redis behind a circuit breaker.

    The first call of a request or a change that fails opens the breaker; from then on no request waits for the server.
    The breaker closes when the server accepts writes again.

    Args:
        primary: The limiter on Redis.
        fallback: The limiter that decides during an outage (policy ``local``). None: deny. It must not consider a row
            current that was not read for the same request: nothing proves that a cached one is fresh.
        observer: Notified when an outage begins and when it ends.
        silenced_checks: The setting of this name.

    Attributes:
        primary: The limiter on Redis.
    """

    counts_usage = True

    def __init__(
        self,
        primary: RedisLimiterBase,
        fallback: MemoryLimiter | None,
        observer: Observer,
        silenced_checks: Collection[str] = (),
    ) -> None:
        self.primary = primary
        self._silenced_checks = silenced_checks
        self._observer = observer
        self._fallback = fallback
        self._was_reached = False
        self._breaker = CircuitBreaker(
            "redis",
            self._probe,
            "requests are denied" if fallback is None else "each worker enforces limits on its own",
            on_open=self._begin_outage,
            on_close=self._recover,
            watch_every_s=WATCH_EVERY_S if primary.fails_over else None,
            outages=(LimiterUnavailable,),
            is_rejection=is_rejection,
        )
        primary.on_outage = self._decide_locally

    @override
    async def start(self) -> None:
        self._was_reached = False
        try:
            await self.primary.start()
        except LimiterUnavailable as error:
            if is_rejection(error):
                raise SetupError(
                    f"The Redis server at {self.primary.where} rejects the connection ({error})."
                ) from None
            self._breaker.start(error)
        else:
            self._was_reached = True
            self._breaker.start()

    @override
    async def close(self) -> None:
        await self._breaker.stop()
        await self.primary.close()

    @override
    def check(self, question: LimitCheck) -> Awaitable[Decision]:
        if not self._breaker.is_open:
            return self.primary.check(question)
        return self._local_for(question, LimiterUnavailable("outage")).check(question)

    @override
    def try_decide(self, question: LimitCheck) -> Decision | None:
        return None if self._breaker.is_open else self.primary.try_decide(question)

    @override
    def find_allowance(self, question: LimitCheck) -> Allowance | None:
        return self.primary.find_allowance(question)  # an outage ends all leases

    def _decide_locally(self, question: LimitCheck, error: LimiterUnavailable) -> Decision:
        self._breaker.report_failure(error)
        return self._local_for(question, error).try_decide(question)

    @override
    def known_block_s(self, bucket: str) -> int | None:
        if not self._breaker.is_open:
            return self.primary.known_block_s(bucket)
        return None if self._fallback is None else self._fallback.known_block_s(bucket)

    @override
    async def record_failure(self, bucket: str) -> int | None:
        if not self._breaker.is_open:
            try:
                return await self.primary.record_failure(bucket)
            except LimiterUnavailable as error:
                self._breaker.report_failure(error)
        return await self._local().record_failure(bucket)

    @override
    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        await self._bump(lambda: self.primary.bump_generation(key_id, owner_id))

    @override
    async def bump_owner_generation(self, owner_id: str) -> None:
        await self._bump(lambda: self.primary.bump_owner_generation(owner_id))

    async def _bump(self, bump: Callable[[], Awaitable[None]]) -> None:
        self._require_primary()  # never the fallback: other workers must learn of the change
        try:
            await bump()
        except Unsettled:
            raise
        except LimiterUnavailable as error:
            self._breaker.report_failure(error)
            raise

    @override
    async def read_ticket(self, key_id: str, secret_id: int) -> str | None:
        self._require_primary()
        # An error is not taken for an outage, as in ``blocks``: the check of the same request finds out.
        return await self.primary.read_ticket(key_id, secret_id)

    @override
    async def write_ticket(self, key_id: str, secret_id: int, ticket: str) -> None:
        self._require_primary()
        await self.primary.write_ticket(key_id, secret_id, ticket)

    @override
    async def find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        if not self._breaker.is_open:
            try:
                return await self.primary.find_generations(holders)
            except LimiterUnavailable as error:
                self._breaker.report_failure(error)
        self._local()  # raises if requests are denied
        return [""] * len(holders)  # only the rows themselves tell

    @override
    async def read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> list[UsageCount]:
        self._require_primary()
        # An error is not taken for an outage: no request waits for this.
        return await self.primary.read_usage(wanted, forget_before)

    @override
    async def blocks(self) -> dict[str, int]:
        self._require_primary()  # those of all workers, and not of this process
        # An error is not taken for an outage: this scans all names, by commands that may be forbidden.
        return await self.primary.blocks()

    @override
    async def unblock(self, bucket: str) -> bool:
        if self._fallback is not None:
            await self._fallback.unblock(bucket)  # failed attempts that this process counted during an outage
        self._require_primary()
        return await self.primary.unblock(bucket)  # an error is not taken for an outage, as in ``blocks``

    @override
    async def run_checks(self) -> list[CheckWarning]:
        return await self.primary.run_checks() if self._was_reached else []  # if not: when it is first reached

    def _local_for(self, question: LimitCheck, error: LimiterUnavailable) -> MemoryLimiter:
        """Return the fallback, unless it would have to settle what Redis charged: the caller has to retry later."""
        local, charge = self._local(), question.charge
        if charge is not None and charge.actual is not None and not local.has_charge(charge.id):
            raise error
        return local

    def _local(self) -> MemoryLimiter:
        if self._fallback is None:
            raise LimiterUnavailable("outage")
        return self._fallback

    def _require_primary(self) -> None:
        if self._breaker.is_open:
            raise LimiterUnavailable("outage")

    async def _probe(self) -> None:
        await self.primary.probe()
        if not self._was_reached:
            self._was_reached = True
            for warning in await self.primary.run_checks():
                warning.warn(self._silenced_checks)

    def _begin_outage(self, reason: str) -> None:
        self.primary.end_leases()
        self._observer.report_outage("redis", reason)

    def _recover(self) -> None:
        self.primary.invalidate_generations()
        self._observer.report_recovery("redis")
