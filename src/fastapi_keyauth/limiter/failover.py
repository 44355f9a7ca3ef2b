"""What to do while Redis is out of reach, in one place: fail fast, limit locally or deny, notice when it is back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.errors import LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase, Unsettled
from fastapi_keyauth.limiter.redis.errors import is_rejection
from fastapi_keyauth.settings.checks import CheckWarning
from fastapi_keyauth.telemetry.observer import Observer

logger = logging.getLogger("fastapi_keyauth")

PROBE_EVERY_S = 0.5
"""Seconds between looks whether a server that was lost is back."""
WATCH_EVERY_S = 1.0
"""Seconds between looks at servers that may fail over. A worker that asks nothing for a while would not notice that one
hung, was replaced, and came back with what it knew before; it must lose sight of it within the time that a failover
takes at the least."""
FAILED_EVERY_S = 60.0
"""Seconds between log lines about a look that fails for another reason than an outage."""


class FailoverLimiter:
    """A limiter on Redis behind a circuit breaker.

    The first call of a request or a change that fails opens it; from then on no request waits for the server. A task
    asks every ``PROBE_EVERY_S`` whether the server takes writes again, and closes the breaker when it does.

    Args:
        primary: the limiter on Redis.
        fallback: what answers meanwhile (policy ``local``); None to deny. It must take no row for current that was not
            read for the very request: nothing proves a remembered one fresh.
        observer: told when an outage begins and when it ends.

    Attributes:
        primary: the same.
    """

    def __init__(self, primary: RedisLimiterBase, fallback: MemoryLimiter | None, observer: Observer) -> None:
        self.primary = primary
        self._observer = observer
        primary.rescue = self._rescue
        self._fallback = fallback
        self._probe: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._is_closed = False
        self._was_reached = False
        self._failures = LogThrottle(FAILED_EVERY_S)
        self._refusals = LogThrottle(FAILED_EVERY_S)

    async def start(self) -> None:
        """See ``Limiter``."""
        self._is_closed = self._was_reached = False
        try:
            await self.primary.start()
        except LimiterUnavailable as error:
            if is_rejection(error):
                raise SetupError(f"The Redis server at {self.primary.where} refuses ({error}).") from None
            self._open(error)
        else:
            self._was_reached = True
            self._observer.back("redis")  # where it was away when this was closed before
        if self.primary.fails_over:
            self._watch = asyncio.create_task(self._keep_watch(), name="keyauth-watch")

    async def close(self) -> None:
        """See ``Limiter``."""
        self._is_closed = True
        tasks = [task for task in (self._watch, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watch = self._probe = None
        await self.primary.close()

    def check(self, ask: LimitCheck) -> Awaitable[Decision]:
        """See ``Limiter``."""
        return self.primary.check(ask) if self._probe is None else self._local().check(ask)

    def _rescue(self, ask: LimitCheck, error: LimiterUnavailable) -> Decision:
        self._open(error)
        return self._local().decide(ask)

    def known_block_s(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        if self._probe is None:
            return self.primary.known_block_s(bucket)
        return None if self._fallback is None else self._fallback.known_block_s(bucket)

    async def record_failure(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        if self._probe is None:
            try:
                return await self.primary.record_failure(bucket)
            except LimiterUnavailable as error:
                self._open(error)
        return await self._local().record_failure(bucket)

    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        """See ``Limiter``. Never answered by the fallback: other workers must hear of it."""
        await self._bump(lambda: self.primary.bump_generation(key_id, owner_id))

    async def bump_owner_generation(self, owner_id: str) -> None:
        """See ``Limiter``. Never answered by the fallback, either."""
        await self._bump(lambda: self.primary.bump_owner_generation(owner_id))

    async def _bump(self, bump: Callable[[], Awaitable[None]]) -> None:
        if self._probe is not None:
            raise LimiterUnavailable("outage")
        try:
            await bump()
        except Unsettled:
            raise
        except LimiterUnavailable as error:
            self._open(error)
            raise

    async def blocks(self) -> dict[str, int]:
        """See ``Limiter``. Those of all workers, or none: the fallback's are this process's own."""
        if self._probe is not None:
            raise LimiterUnavailable("outage")
        # Where it fails that is no outage: it is a walk through all names, by commands that may be forbidden.
        return await self.primary.blocks()

    async def unblock(self, bucket: str) -> bool:
        """See ``Limiter``. Also what this process has counted by itself during an outage."""
        if self._fallback is not None:
            await self._fallback.unblock(bucket)
        if self._probe is not None:
            raise LimiterUnavailable("outage")
        return await self.primary.unblock(bucket)  # as with ``blocks``

    async def run_checks(self) -> list[CheckWarning]:
        """See ``Limiter``. Where the server was away at the start, they are looked for when it is there."""
        return await self.primary.run_checks() if self._was_reached else []

    def _local(self) -> MemoryLimiter:
        if self._fallback is None:
            raise LimiterUnavailable("outage")
        return self._fallback

    def _open(self, error: LimiterUnavailable) -> None:
        if self._probe is not None or self._is_closed:
            return
        policy = "denying requests" if self._fallback is None else "each worker limits by itself"
        logger.error(
            "redis unavailable (%s): %s until it is back",
            error,
            policy,
            extra={"keyauth_event": "outage", "part": "redis", "reason": str(error)},
        )
        self._observer.lost("redis", str(error))
        self._probe = asyncio.create_task(self._wait_for_return(str(error)), name="keyauth-probe")

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self._probe is None:
                try:
                    await self.primary.probe()
                except LimiterUnavailable as error:
                    self._open(error)
                except Exception as error:
                    self._look_failed(error)

    async def _wait_for_return(self, reason: str) -> None:
        while True:
            # Also before the first look: where the look succeeds and requests fail, this keeps them from taking turns.
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                await self.primary.probe()
                if not self._was_reached:
                    self._was_reached = True
                    for warning in await self.primary.run_checks():
                        warning.warn()
                break
            except LimiterUnavailable as error:
                if is_rejection(error) and str(error) != reason:
                    self._tell_of_refusal(error)
            except Exception as error:
                self._look_failed(error)
        self.primary.invalidate_generations()
        self._probe = None
        logger.warning("redis is back", extra={"keyauth_event": "recovered", "part": "redis"})
        self._observer.back("redis")

    def _tell_of_refusal(self, error: LimiterUnavailable) -> None:
        """Who has brought the server back, and forgot its password, must not be left with why it was away."""
        if self._refusals.allow() is not None:
            logger.error(
                "redis is there and refuses (%s)",
                error,
                extra={"keyauth_event": "redis_refuses", "part": "redis", "reason": str(error)},
            )

    def _look_failed(self, error: Exception) -> None:
        """A bug, here or in the client library. It must not end the looking, and so the recovery, for good."""
        if self._failures.allow() is not None:
            logger.error(
                "looking at redis failed, will try again", exc_info=error, extra={"keyauth_event": "look_failed"}
            )
