"""Whether the database answers at all, in one place: a circuit breaker, so that requests do not wait for it in turn.

A statement that fails is a suspicion, no more: it may have been slow, met a deadlock, or found all connections busy. On
a suspicion the database is asked a question over a connection of its own. Where that goes unanswered, too, and no key
that a request reads has come back meanwhile, the database is away: the breaker opens, and what needs the database fails
at once. The question is then asked again and again, and closes the breaker when it is answered.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.telemetry.observer import Observer

logger = logging.getLogger("fastapi_keyauth")

PROBE_EVERY_S = 0.5
PROBE_TIMEOUT_S = 1.5


class CircuitBreaker:
    """Open while the database is away. Use it from one event loop, between ``start`` and ``stop``.

    Args:
        probe: asks the database something and raises where it cannot. It may hang; then it is cancelled, and not
            called again before it has ended.
        observer: told when the database is lost and when it is back; None: nobody is.
    """

    def __init__(self, probe: Callable[[], Coroutine[Any, Any, None]], observer: Observer | None = None) -> None:
        self._probe = probe
        self._observer = observer
        self._is_started = False
        self._watch: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None
        self._answers = 0
        self._log_throttle = LogThrottle()
        self.is_open = False

    def start(self) -> None:
        """From now on suspicions are looked into."""
        self._is_started = True
        if self._observer is not None:
            self._observer.back("database")  # where it was away when this was stopped before

    async def stop(self) -> None:
        """Ask no more."""
        self._is_started = False
        running = [task for task in (self._watch, self._question) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._watch = self._question = None
        self.is_open = False

    def check(self) -> None:
        """Go on only where the database is not known to be away.

        Raises:
            StoreUnavailable: it is.
        """
        if self.is_open:
            raise StoreUnavailable

    def answered(self) -> None:
        """A key that a request reads has come back: whatever else fails, the database is there."""
        self._answers += 1

    def report_failure(self, error: BaseException) -> None:
        """A statement failed in a way that may mean that the database is away."""
        if self._is_started and self._watch is None:
            self._watch = asyncio.create_task(self._investigate(error), name="keyauth-database-probe")

    async def _investigate(self, error: BaseException) -> None:
        try:
            answers = self._answers
            if await self._is_answered() or self._answers != answers:
                self._log_failure(error)
                return
            self._open(self._clearest_error(error))
            while True:
                await asyncio.sleep(PROBE_EVERY_S)
                if await self._is_answered():
                    break
            self._close()
        finally:
            self._watch = None

    async def _is_answered(self) -> bool:
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._probe(), name="keyauth-database-question")
            self._question.add_done_callback(_look_at)
        done, _ = await asyncio.wait([self._question], timeout=PROBE_TIMEOUT_S)
        if not done:
            if not self._question.cancelling():  # it may need a while to put its connection away
                self._question.cancel()
            return False
        return not self._question.cancelled() and self._question.exception() is None

    def _clearest_error(self, error: BaseException) -> BaseException:
        """What a new connection met, where it was told; a statement that was cut off says little of why."""
        question = self._question
        if question is None or not question.done() or question.cancelled():
            return error
        met = question.exception()
        return error if met is None or isinstance(met, TimeoutError) else met

    def _open(self, error: BaseException) -> None:
        reason = describe(error)
        self.is_open = True
        logger.error(
            "database unavailable (%s): what needs it is refused until it is back",
            reason,
            extra={"keyauth_event": "outage", "part": "database", "reason": reason},
        )
        if self._observer is not None:
            self._observer.lost("database", reason)

    def _close(self) -> None:
        self.is_open = False
        logger.warning("database is back", extra={"keyauth_event": "recovered", "part": "database"})
        if self._observer is not None:
            self._observer.back("database")

    def _log_failure(self, error: BaseException) -> None:
        if self._log_throttle.allow() is not None:  # one line every few seconds, however many fail
            reason = describe(error)
            logger.warning(
                "a statement failed: %s", reason, extra={"keyauth_event": "statement_failed", "reason": reason}
            )


def _look_at(question: asyncio.Task[None]) -> None:
    """Asyncio logs a traceback of an error that nobody looked at, of a question that was given up as well."""
    if not question.cancelled():
        question.exception()


def describe(error: BaseException) -> str:
    """Type and first line of the root of an error; parameters are hidden by the engine."""
    root = getattr(error, "orig", None) or error
    lines = str(root).splitlines()
    return f"{type(root).__name__}: {lines[0] if lines else 'no answer in time'}"
