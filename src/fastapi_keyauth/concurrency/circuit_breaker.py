"""A circuit breaker with a background probe.

| state | calls | probe |
| --- | --- | --- |
| closed | go through | runs every ``watch_every_s``, if given |
| suspicious (only with ``confirms_failures``) | go through | runs once, then decides |
| open | fail fast; the caller checks ``is_open`` | runs every ``probe_every_s``, closes the breaker when it succeeds |

No call is ever the probe: a call that waits for a dependency to recover is a request that waits.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.concurrency.stall_tolerant_timeout import stall_tolerant_timeout

logger = logging.getLogger("fastapi_keyauth")

PROBE_EVERY_S = 0.5
"""Seconds between probes while the breaker is open."""
PROBE_LOG_EVERY_S = 60.0
"""Seconds between log lines about probes that fail for a reason that does not go away by itself."""


class CircuitBreaker:
    """Opens during an outage, so that calls fail fast. Use it from one event loop, between ``start`` and ``stop``.

    Args:
        part: Name of the dependency in log lines, such as ``redis``.
        probe: Checks the dependency; raises if it is unavailable. It may hang: it is then cancelled after
            ``probe_timeout_s``, and not started again before it has ended.
        consequence: What an outage means, the end of its log line, such as ``requests are denied``.
        on_open: Called with the reason when an outage begins.
        on_close: Called when it ends, before the next call goes through.
        probe_timeout_s: Seconds for a probe. None if the probe limits its own time.
        probe_every_s: Seconds between probes while the breaker is open.
        watch_every_s: Seconds between probes while it is closed. None: no probes.
        confirms_failures: Whether a failed call opens the breaker only if a probe fails too. If not, it opens
            immediately.
        outages: Errors of the probe that mean an outage. Any other one is a bug: it is logged with its traceback, does
            not open the breaker and does not end the probing.
        describe: Returns the reason to show for an error, without secrets.
        is_rejection: Returns whether an error means that the dependency responds but rejects the connection, which only
            people can change.

    Attributes:
        is_open: Whether there is an outage.
    """

    def __init__(
        self,
        part: str,
        probe: Callable[[], Coroutine[Any, Any, None]],
        consequence: str,
        on_open: Callable[[str], None],
        on_close: Callable[[], None],
        *,
        probe_timeout_s: float | None = None,
        probe_every_s: float = PROBE_EVERY_S,
        watch_every_s: float | None = None,
        confirms_failures: bool = False,
        outages: tuple[type[BaseException], ...] = (Exception,),
        describe: Callable[[BaseException], str] = str,
        is_rejection: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self.is_open = False
        self._part = part
        self._probe = probe
        self._consequence = consequence
        self._on_open = on_open
        self._on_close = on_close
        self._probe_timeout_s = probe_timeout_s
        self._probe_every_s = probe_every_s
        self._watch_every_s = watch_every_s
        self._confirms_failures = confirms_failures
        self._outages = outages
        self._describe = describe
        self._is_rejection = is_rejection
        self._is_started = False
        self._is_reported = False
        """Whether ``on_open`` was called, and ``on_close`` not yet."""
        self._reason = ""
        self._successes = 0
        self._probing: asyncio.Task[None] | None = None
        self._handling: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failure_log = LogThrottle()
        self._rejection_log = LogThrottle(PROBE_LOG_EVERY_S)
        self._bug_log = LogThrottle(PROBE_LOG_EVERY_S)

    def start(self, error: BaseException | None = None) -> None:
        """Begin to act on failures.

        Args:
            error: Why the dependency is unavailable at the start: the breaker begins open. None: it begins closed.
        """
        self._is_started = True
        if error is not None:
            self._open(error)
            self._handling = asyncio.create_task(self._recover(), name=f"keyauth-{self._part}-probe")
        elif self._is_reported:  # the outage was not over when the breaker was stopped before
            self._is_reported = False
            self._on_close()
        if self._watch_every_s is not None:
            self._watching = asyncio.create_task(self._watch(self._watch_every_s), name=f"keyauth-{self._part}-watch")

    async def stop(self) -> None:
        """Stop probing. The breaker is closed then: without a probe it could not close again."""
        self._is_started = False
        running = [task for task in (self._watching, self._handling, self._probing) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._watching = self._handling = self._probing = None
        self.is_open = False

    def report_failure(self, error: BaseException) -> None:
        """Report that a call failed in a way that may mean an outage.

        Args:
            error: Its error.
        """
        if not self._is_started or self._handling is not None:
            return
        if self._confirms_failures:
            work = self._investigate(error)
        else:
            self._open(error)
            work = self._recover()
        self._handling = asyncio.create_task(work, name=f"keyauth-{self._part}-probe")

    def report_success(self) -> None:
        """Report that a call succeeded that needs the same as the probe; a probe that fails meanwhile opens nothing."""
        self._successes += 1

    async def _investigate(self, error: BaseException) -> None:
        successes = self._successes
        found = await self._run_probe()
        if found is None or self._successes != successes:
            self._handling = None
            self._log_failure(error)
            return
        self._open(self._clearest_error(error, found))
        await self._recover()

    async def _recover(self) -> None:
        found: BaseException | None
        while True:
            # Before the first probe as well: if probes succeed and calls fail, this keeps them from alternating.
            await asyncio.sleep(self._probe_every_s)
            found = await self._run_probe()
            if found is None:
                break
            self._log_probe_failure(found)
        self._handling = None
        self._close()

    async def _watch(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if self._handling is None:
                found = await self._run_probe()
                if isinstance(found, self._outages):
                    self.report_failure(found)
                elif found is not None:
                    self._log_probe_failure(found)

    async def _run_probe(self) -> BaseException | None:
        """Run the probe, or wait for one that still runs. Return its error; None if it succeeded."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name=f"keyauth-{self._part}-probe-call")
            self._probing.add_done_callback(_mark_as_retrieved)
        probing = self._probing
        try:
            if self._probe_timeout_s is None:
                await asyncio.wait([probing])
            else:
                async with stall_tolerant_timeout(self._probe_timeout_s):
                    await asyncio.wait([probing])
        except TimeoutError as error:
            if not probing.cancelling():  # it may need a while to release its connection
                probing.cancel()
            return error
        return TimeoutError() if probing.cancelled() else probing.exception()

    def _open(self, error: BaseException) -> None:
        self._reason = self._describe(error)
        self.is_open = self._is_reported = True
        logger.error(
            "%s unavailable (%s): %s",
            self._part,
            self._reason,
            self._consequence,
            extra={"keyauth_event": "outage", "part": self._part, "reason": self._reason},
        )
        self._on_open(self._reason)

    def _close(self) -> None:
        self.is_open = self._is_reported = False
        logger.warning("%s recovered", self._part, extra={"keyauth_event": "recovered", "part": self._part})
        self._on_close()

    @staticmethod
    def _clearest_error(error: BaseException, found: BaseException) -> BaseException:
        """Return the probe's error, which says more than that of a call that was cut off, unless it is a timeout."""
        return error if isinstance(found, TimeoutError) else found

    def _log_failure(self, error: BaseException) -> None:
        if self._failure_log.allow() is None:
            return
        reason = self._describe(error)
        logger.warning(
            "%s call failed, but the health check passed: %s",
            self._part,
            reason,
            extra={"keyauth_event": "statement_failed", "part": self._part, "reason": reason},
        )

    def _log_probe_failure(self, error: BaseException) -> None:
        if not isinstance(error, (*self._outages, TimeoutError)):
            if self._bug_log.allow() is not None:
                logger.error(
                    "%s health check failed; retrying",
                    self._part,
                    exc_info=error,
                    extra={"keyauth_event": "look_failed", "part": self._part},
                )
            return
        reason = self._describe(error)
        if self._is_rejection is None or not self._is_rejection(error) or reason == self._reason:
            return
        # A server that was restored with another password must not be reported with the first reason only.
        if self._rejection_log.allow() is not None:
            logger.error(
                "%s responds but rejects the connection (%s)",
                self._part,
                reason,
                extra={"keyauth_event": f"{self._part}_refuses", "part": self._part, "reason": reason},
            )


def _mark_as_retrieved(probing: asyncio.Task[None]) -> None:
    """Keep asyncio from logging the error of a probe that was given up."""
    if not probing.cancelled():
        probing.exception()
