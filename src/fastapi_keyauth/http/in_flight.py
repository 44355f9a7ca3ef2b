"""The open requests, and the periodic check that ends those whose credentials lost their rights.

Each request costs an entry in a dictionary. A check begins when the oldest open request was not checked for
``CHECK_AFTER`` of the promised time, and covers all open requests. An application with only short requests therefore
never checks any, and each worker makes about one check in that time. It begins the earlier, the more requests one owner
has open, since it takes time to end all of them.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from fastapi_keyauth.auth.rights import RightsCheck
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.open_request import OpenRequest
from fastapi_keyauth.settings.settings import KeyAuthSettings

logger = logging.getLogger("fastapi_keyauth")

CHECK_AFTER = 0.8
"""Share of ``end_in_flight_within_s`` after which an open request is checked again. The rest is left for reading what
changed, and for ending requests."""
MIN_CHECK_AFTER = 0.4
"""The smallest such share, however many requests an owner has open."""
TELL_S = 0.00008
"""Seconds that it takes to find one request that must end, and to tell its client why."""
ENDED_IN_A_ROW = 50
"""Number of requests that are ended before other tasks get a turn of the event loop."""

Find = Callable[[list[OpenRequest], float], Awaitable[Mapping[OpenRequest, KeyAuthError]]]
"""Finds the requests that have lost their rights; see ``RightsCheck``."""


def check_after_s(within_s: float, count: int) -> float:
    """Return the seconds after which open requests are checked again.

    Args:
        within_s: The setting ``end_in_flight_within_s``.
        count: Number of requests that may have to end together. That takes time, which must be left.
    """
    return max(CHECK_AFTER * within_s - TELL_S * count, MIN_CHECK_AFTER * within_s)


class InFlight:
    """The open requests of one KeyAuth; see the module.

    Args:
        rights: Finds the requests that would be refused now.
        within_s: Seconds within which a request ends after its credentials lost their rights.

    Attributes:
        open: The open requests, in the order in which they began. The middleware adds and removes them, since a method
            for it would cost every request a call.
        loop: The event loop between ``start`` and ``close``.
        thread_id: The thread of the event loop.
        is_watching: Whether a check of the open requests is scheduled. If not, a new request must call ``watch``.
    """

    def __init__(self, rights: RightsCheck, within_s: float) -> None:
        self._rights = rights
        self._within_s = within_s
        self.open: dict[OpenRequest, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread_id = 0
        self.is_watching = False
        self._checked_at = 0.0
        self._most = 0
        """Number of requests that the owner with the most of them had open in the last check."""
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[None] | None = None
        self._session_check: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, settings: KeyAuthSettings, rights: RightsCheck) -> "InFlight | None":
        """Create it for the settings. None if requests in flight continue, whatever happens to their credentials."""
        within_s = settings.end_in_flight_within_s
        return None if within_s is None else cls(rights, within_s)

    def start(self) -> None:
        """Start in the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.thread_id = threading.get_ident()
        self.is_watching = False

    async def close(self) -> None:
        """Stop. Open requests continue."""
        self.loop = None
        self.is_watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        checks = [task for task in (self._check, self._session_check) if task is not None]
        self._check = self._session_check = None
        for task in checks:
            task.cancel()
        # Not the endings, which wait for nothing: a task that is cancelled before it begins runs no ``finally``, and
        # the requests that it was to finish would wait for it forever.
        await asyncio.gather(*checks, *self._endings, return_exceptions=True)

    def watch(self) -> None:
        """Watch the open requests, of which the first has just begun."""
        self._schedule(check_after_s(self._within_s, self._most))

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
        due_at = max(oldest.began_at, self._checked_at) + check_after_s(self._within_s, self._most)
        left_s = due_at - time.monotonic()
        if left_s > 0:
            self._schedule(left_s)
        else:
            self._check = self.loop.create_task(self._check_rights(), name="keyauth-in-flight")

    async def _check_rights(self) -> None:
        at = self._checked_at = time.monotonic()
        running = [request for request in self.open if not request.is_complete and request.ending is None]
        owners = Counter(None if (key := request.context.key) is None else key.owner_id for request in running)
        self._most = max(owners.values(), default=0)
        await self._end_lost(self._rights.find_lost_keys, running, at)
        # In a task of its own: a session resolver that takes long, or hangs, must not delay the checks of keys.
        if self._session_check is None or self._session_check.done():
            self._session_check = asyncio.create_task(
                self._end_lost(self._rights.find_lost_sessions, running, at), name="keyauth-in-flight-sessions"
            )
        self._check_if_due()

    async def _end_lost(self, find: Find, running: list[OpenRequest], at: float) -> None:
        try:
            lost = await find(running, at)
        except Exception:  # the next check must still run; the log has the error
            logger.exception("checking requests in flight failed; retrying", extra={"keyauth_event": "check_failed"})
            return
        ended = [request for request, error in lost.items() if request in self.open and request.end(error)]
        if ended:
            # In a task of its own: the next check must not wait until thousands of applications have cleaned up.
            ending = asyncio.create_task(_end(ended), name="keyauth-in-flight-end")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)


async def _end(ended: list[OpenRequest]) -> None:
    """Tell the clients why their requests were ended, and then cancel the applications.

    In this order, because to clean up takes most applications longer than everything else.
    """
    try:
        async for request in _in_turns(ended):
            request.tell()
        async for request in _in_turns(ended):
            request.finish()
            request.report()
    finally:
        for request in ended:  # also if this task was cancelled: the requests' own tasks wait for it
            request.tell()
            request.finish()


async def _in_turns(requests: list[OpenRequest]) -> AsyncIterator[OpenRequest]:
    for number, request in enumerate(requests, 1):
        yield request
        if number % ENDED_IN_A_ROW == 0 or number == len(requests):
            await asyncio.sleep(0)
