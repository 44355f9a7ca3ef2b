"""The open requests, and the periodic check that ends those whose credentials lost their rights.

Each request costs an entry in a dictionary. A check begins when the oldest open request was not checked for
``CHECK_AFTER`` of the promised time, and covers all open requests. An application with only short requests therefore
never checks any, and each worker makes at most one check in that time, however many requests are open.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping

from fastapi_keyauth.auth.rights import RightsCheck
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.open_request import OpenRequest
from fastapi_keyauth.settings.settings import KeyAuthSettings

logger = logging.getLogger("fastapi_keyauth")

CHECK_AFTER = 0.8
"""Share of ``end_in_flight_within_s`` after which an open request is checked again. The rest is left for reading what
changed, and for ending requests."""
ENDED_IN_A_ROW = 50
"""Number of requests that are ended before other tasks get a turn of the event loop."""


class InFlight:
    """The open requests of one KeyAuth; see the module.

    Args:
        rights: Finds the requests that would be refused now.
        within_s: Seconds within which a request ends after its credentials lost their rights.

    Attributes:
        open: The open requests, in the order in which they began. The middleware adds and removes them, since a method
            for it would cost every request a call.
        loop: The event loop between ``start`` and ``close``.
        is_watching: Whether a check of the open requests is scheduled. If not, a new request must call ``watch``.
    """

    def __init__(self, rights: RightsCheck, within_s: float) -> None:
        self._rights = rights
        self._period_s = CHECK_AFTER * within_s
        self.open: dict[OpenRequest, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_watching = False
        self._checked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[None] | None = None
        self._session_check: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, settings: KeyAuthSettings, rights: RightsCheck) -> "InFlight | None":
        """Create it for the settings. None if requests in flight continue, whatever happens to their credentials."""
        within_s = settings.end_in_flight_within_s
        return None if within_s is None else cls(rights, within_s)

    def start(self) -> None:
        """Start in the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.is_watching = False

    async def close(self) -> None:
        """Stop. Open requests continue."""
        self.loop = None
        self.is_watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        checks = [check for check in (self._check, self._session_check) if check is not None]
        self._check = self._session_check = None
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    def watch(self) -> None:
        """Watch the open requests, of which the first has just begun."""
        self._schedule(self._period_s)

    def _schedule(self, seconds: float) -> None:
        if self.loop is not None:
            self.is_watching = True
            self._timer = self.loop.call_later(seconds, self._check_if_due)

    def _check_if_due(self) -> None:
        """Start a check if one is due, or schedule it. Stop watching if no request is open."""
        self._timer = None
        oldest = next(iter(self.open), None)
        if oldest is None or self.loop is None:
            self.is_watching = False
            return
        left_s = max(oldest.began_at, self._checked_at) + self._period_s - time.monotonic()
        if left_s > 0:
            self._schedule(left_s)
        else:
            self._check = self.loop.create_task(self._check_rights(), name="keyauth-in-flight")

    async def _check_rights(self) -> None:
        at = self._checked_at = time.monotonic()
        running = [request for request in self.open if not request.is_complete and request.ending is None]
        await self._end_lost(self._rights.find_lost_keys(running, at))
        # In a task of its own: a session resolver that takes long, or hangs, must not delay the checks of keys.
        if self._session_check is None or self._session_check.done():
            self._session_check = asyncio.create_task(
                self._end_lost(self._rights.find_lost_sessions(running, at)), name="keyauth-in-flight-sessions"
            )
        self._check_if_due()

    async def _end_lost(self, finding: Awaitable[Mapping[OpenRequest, KeyAuthError]]) -> None:
        try:
            for number, (request, error) in enumerate((await finding).items(), 1):
                if request in self.open:  # its task may be doing something else by now
                    request.end(error)
                if number % ENDED_IN_A_ROW == 0:
                    await asyncio.sleep(0)
        except Exception:  # the next check must still run; the log has the error
            logger.exception("checking requests in flight failed; retrying", extra={"keyauth_event": "check_failed"})
