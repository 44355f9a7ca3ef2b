"""Start and stop of the parts of a KeyAuth."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

from fastapi_keyauth.concurrency.periodic import PeriodicTasks
from fastapi_keyauth.keys.outbox import POLL_INTERVAL_S
from fastapi_keyauth.limiter.traced import TracedLimiter
from fastapi_keyauth.parts import Parts
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.settings.checks import run_checks
from fastapi_keyauth.settings.settings import KeyAuthSettings


class Lifecycle:
    """Starts the parts for their first user, and stops them after the last.

    Args:
        parts: What is started and stopped.
        settings: Checked at each start.
        check_apps: Checks the applications that the parts serve at each start. Returns warnings.
    """

    def __init__(
        self, parts: Parts, settings: KeyAuthSettings, check_apps: Callable[[], Iterable[CheckWarning]]
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._check_apps = check_apps
        self._users = 0
        self._check_lineage = parts.store.lineage.check
        self._housekeeping = PeriodicTasks(
            POLL_INTERVAL_S,
            self._check_lineage,
            parts.outbox.drain,
            parts.usage.flush,
            parts.lifetimes.act_when_due,
            parts.day_closer.start_when_due,
            parts.pruner.prune_when_due,
        )

    async def enter(self) -> None:
        """Add a user; the first one starts the parts. Errors are those of ``KeyAuth.__aenter__``."""
        event_loop = self._parts.event_loop
        lock = event_loop.bind()
        try:
            async with lock:
                if self._users == 0:
                    await self._start()
                self._users += 1
        except BaseException:  # also if the start is cancelled
            event_loop.release()
            raise

    async def exit(self) -> None:
        """Remove a user; the last one stops the parts."""
        event_loop = self._parts.event_loop
        lock = event_loop.bind()
        try:
            async with lock:
                self._users -= 1
                if self._users == 0:
                    await self._stop()
        finally:
            event_loop.release()  # of this call
            event_loop.release()  # of the start

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        """Start only what a script needs. See ``KeyAuth.connect``."""
        parts = self._parts
        await parts.database.start()
        try:
            parts.hasher.start()
            parts.usage.start()
            yield
        finally:
            await parts.limiter.close()
            await parts.database.close()
            parts.hasher.close()

    async def _start(self) -> None:
        parts = self._parts
        for warning in (*run_checks(self._settings), *self._check_apps()):
            warning.warn(self._settings.silenced_checks)
        await parts.database.start()
        try:
            await self._check_lineage()
            await parts.limiter.start()
            for warning in await parts.limiter.run_checks():
                warning.warn(self._settings.silenced_checks)
        except BaseException:  # also if the start is cancelled
            await parts.limiter.close()
            await parts.database.close()
            raise
        if parts.event_dispatcher is not None:
            parts.event_dispatcher.start()
        parts.metrics.start()
        if self._settings.redis_url is not None and parts.metrics.is_tracing:
            parts.authenticator.limiter = TracedLimiter(parts.limiter, parts.metrics.span)
        parts.hasher.start()
        parts.usage.start()
        parts.pruner.start()
        if parts.in_flight is not None:
            parts.in_flight.start()
        self._housekeeping.start()

    async def _stop(self) -> None:
        parts = self._parts
        async with contextlib.AsyncExitStack() as closing:  # in reverse order, even if one of them fails
            closing.callback(parts.hasher.close)
            closing.push_async_callback(parts.database.close)
            closing.push_async_callback(parts.usage.settle)
            closing.push_async_callback(parts.limiter.close)
            if parts.event_dispatcher is not None:
                closing.push_async_callback(parts.event_dispatcher.close)  # its handlers may read keys
            closing.push_async_callback(parts.verifier.close)
            closing.push_async_callback(parts.usage.close)
            closing.push_async_callback(parts.database.settle)  # there may be changes to publish
            closing.push_async_callback(parts.day_closer.close)
            closing.push_async_callback(self._housekeeping.close)
            if parts.in_flight is not None:
                closing.push_async_callback(parts.in_flight.close)
