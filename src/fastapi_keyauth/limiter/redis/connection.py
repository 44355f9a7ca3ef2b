"""A held, pipelined connection to one Redis server, straight between hiredis and the event loop.

redis-py connects (TLS, password, database and all other options of the URL); then its transport is taken over.
Sending each call through redis-py's pool, timeouts and streams costs the process three times as much as everything else
in the call.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection

from fastapi_keyauth.concurrency.stall_tolerant_timeout import StallTolerantTimer
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.limiter.redis.link import Done, Link
from fastapi_keyauth.settings.redis_urls import Address

IDLE_AFTER_S = 2.0
"""Seconds without an answer after which a connection is idle. NATs and load balancers silently forget idle connections;
the first call over one gets a part of the time only, so that enough is left for a new connection."""
UNSURE_AFTER_S = 0.1
"""Seconds without an answer after which the next call may be lost, so that it is worth two more commands to know later
whether it was carried out."""
IDLE_SHARE = 0.5
"""The part of the time that the first call over an idle connection gets."""

Pack = Callable[[], bytes]
"""Returns a packed command. Called once the connection is established, immediately before the command is sent."""


class ConnectionLost(LimiterUnavailable):
    """The connection broke, or cannot be made. A call may or may not have been carried out.

    Attributes:
        has_answered: Whether the server answered an earlier call over this connection. If so, it was most likely closed
            or forgotten while it was idle, and a new one may work.
    """

    has_answered = False


class Connection:
    """Calls to one server. Connects when there is something to send. Use it from one event loop.

    Calls are written in the order in which they were made, and answers come in that order. If no answer comes for
    ``timeout_s`` while calls wait, the connection is dropped and all of them fail. Nothing is sent twice: retrying is
    up to the caller, who knows what may be carried out twice.

    Args:
        create_connection: Returns a connection of redis-py that is not connected yet. It must have no
            ``socket_timeout``, since the time is measured here.
        timeout_s: Seconds without an answer, connecting included.
    """

    def __init__(self, create_connection: Callable[[], AbstractConnection], timeout_s: float) -> None:
        self._create_connection = create_connection
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._unsent: list[tuple[Pack, Done, bool]] = []
        self._timer: StallTolerantTimer | None = None
        self._idle = asyncio.Event()
        self._is_closed = False

    @property
    def address(self) -> Address | None:
        """Host and port of the connected server. None if there is no connection, or if the server has no host."""
        return None if self._link is None else self._link.address

    @property
    def is_busy(self) -> bool:
        """Whether calls wait for their answers."""
        return bool(self._unsent) or (self._link is not None and self._link.is_busy)

    @property
    def is_unsure(self) -> bool:
        """Whether the connection that a call would now be sent over may be lost: nothing came over it for a while."""
        link = self._link
        if link is None:
            return True
        return link.is_unsure if link.is_busy else link.idle_s() > UNSURE_AFTER_S

    def call(
        self, pack: Pack, done: Done, timeout_s: float | None = None, *, is_alone: bool = False, is_asking: bool = False
    ) -> None:
        """Send a command.

        Args:
            pack: Packs it.
            done: Called once with the outcome, perhaps before this method returns.
            timeout_s: Seconds until it fails, if no other call waits; default: those of the connection.
            is_alone: Whether to write it immediately. Otherwise all calls of this turn of the event loop are written
                together.
            is_asking: Whether the command concerns a slot of a cluster that is being moved to this node.
        """
        if self._is_closed:
            done(ConnectionLost("closed"))
        elif self._link is not None:
            self._send(self._link, pack, done, timeout_s, is_alone, is_asking)
        else:
            self._unsent.append((pack, done, is_asking))
            if self._opening is None:
                self._opening = asyncio.create_task(self._connect(), name="keyauth-connect")
                self._start_timer(timeout_s or self._timeout_s)

    def request(self, packed: bytes, *, is_asking: bool = False) -> "asyncio.Future[Any]":
        """Send a packed command, and return its answer as a future.

        Args:
            packed: The command.
            is_asking: See ``call``.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.call(lambda: packed, partial(settle_future, future), is_asking=is_asking)
        return future

    def reconnect(self) -> None:
        """Drop the connection, so that the next call uses a new one. Waiting calls fail with ``ConnectionLost``."""
        if self._link is not None:
            self._drop(self._link, ConnectionError("dropped"))

    async def settle(self) -> None:
        """Wait until no call waits for its answer."""
        while self.is_busy:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Close the connection. Waiting calls fail, and so does every later one."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.reconnect()
        self._fail_unsent(lambda: ConnectionLost("closed"))

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = StallTolerantTimer(self._expire)
        self._timer.start(seconds)

    def _send(
        self, link: Link, pack: Pack, done: Done, timeout_s: float | None, is_alone: bool, is_asking: bool
    ) -> None:
        try:
            packed = pack()
        except Exception as error:  # whatever the error is, the caller must be notified
            done(unavailable(error))
            return
        if not link.is_busy:
            seconds = timeout_s or self._timeout_s
            idle_s = link.idle_s()
            link.is_unsure = idle_s > UNSURE_AFTER_S
            if idle_s > IDLE_AFTER_S:
                link.is_doubtful = True
                seconds *= IDLE_SHARE
            self._start_timer(seconds)
        link.send(packed, done, is_alone, is_asking)

    async def _connect(self) -> None:
        connection = self._create_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # untyped in redis-py
        except Exception as error:  # redis-py's own, the system's, or what a server says that is not Redis
            reason = unavailable(error).args
            self._end_connecting(lambda: ConnectionLost(*reason))
        else:
            self._link = link = Link(connection, self._received, self._drop)
            self._opening = None
            unsent, self._unsent = self._unsent, []
            for pack, done, is_asking in unsent:
                try:
                    link.send(pack(), done, False, is_asking)
                except Exception as error:  # as in _send
                    done(unavailable(error))
        finally:
            # After it was taken over, nothing of it is left to close; after an error or a timeout, all of it is.
            await connection.disconnect(nowait=True)

    def _end_connecting(self, make_error: Callable[[], LimiterUnavailable]) -> None:
        if self._opening is asyncio.current_task():
            self._opening = None
            self._timer_stop()
            self._fail_unsent(make_error)

    def _timer_stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()

    def _fail_unsent(self, make_error: Callable[[], LimiterUnavailable]) -> None:
        unsent, self._unsent = self._unsent, []
        for _, done, _ in unsent:
            done(make_error())  # one exception object for each: a shared one would collect every caller's traceback
        self._idle.set()

    def _expire(self) -> None:
        """Act on a server that does not answer. Its late answer must not be taken for one to a later call."""
        link = self._link
        if link is not None:
            if link.is_busy:
                self._drop(link, TimeoutError() if link.is_doubtful else LimiterUnavailable("TimeoutError"))
        elif self._opening is not None:
            self._opening.cancel()
            self._opening = None
            self._fail_unsent(lambda: LimiterUnavailable("TimeoutError"))

    def _drop(self, link: Link, error: Exception) -> None:
        """Give up a connection. An error that is not a ``LimiterUnavailable`` means that it is lost."""
        if link is not self._link:
            return
        self._link = None
        self._timer_stop()
        for done in link.abort():
            failed: LimiterUnavailable
            if isinstance(error, LimiterUnavailable):
                failed = LimiterUnavailable(*error.args)
            else:
                failed = ConnectionLost(*unavailable(error).args)
                failed.has_answered = link.has_answered
            done(failed)
        self._idle.set()

    def _received(self, link: Link) -> None:
        """Note that an answer came over the link."""
        if link is not self._link:
            return
        if link.is_busy:
            self._start_timer(self._timeout_s)
        else:
            self._timer_stop()
            self._idle.set()


def settle_future(future: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give a future the outcome of a call, unless it was cancelled."""
    if future.done():
        return
    if isinstance(outcome, LimiterUnavailable):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
