"""The connection that every request waits for: a held one, straight between hiredis and the event loop.

redis-py makes it (TLS, password, database, whatever the URL asks for); then its transport is taken over. Going through
redis-py's pool, timeouts and streams for each call costs the process three times as much as all of the call besides.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hiredis
from redis.asyncio import Redis

from fastapi_keyauth.concurrency.stall_tolerant_timeout import TICKS
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.redis.scripts import BuildArgs, LuaScript, unavailable

Done = Callable[[Any], None]
"""Called with the answer, or with a LimiterUnavailable; with the latter too where the answer makes it raise."""
LEAST_S = 0.2
"""Seconds that a call gets however long its questions have waited already: a call before it that took nearly all of
the time must not make an outage of it. So a question waits this much longer than the timeout at most."""
_UNFINISHED = object()


@dataclass(slots=True)
class _Call:
    """The call that waits for its answer."""

    prepare: BuildArgs
    done: Done
    timer: asyncio.TimerHandle
    due: float
    tick_s: float
    ticks_left: int = TICKS
    is_sent_again: bool = False


class Wire:
    """Calls one script, one call at a time, over a connection that is made when there is none.

    A call whose connection is lost before the answer has come is sent once more over a new one: most often the server
    had closed it while it lay idle. If it was carried out all the same, its units are counted twice; never more is
    admitted by that, and an outage, in which each worker counts for itself, is not called for one cut connection.

    Args:
        client: makes connections; without ``socket_timeout``, as the time is taken here.
        script: what is called.
        timeout_s: seconds from when the first of its questions was asked to the answer, connecting included.
    """

    def __init__(self, client: Redis, script: LuaScript, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._script = script
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._call: _Call | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def call(self, prepare: BuildArgs, done: Done, since: float) -> None:
        """Call the script with what ``prepare`` gives, once a connection stands.

        Args:
            prepare: gives the names and arguments.
            done: called with the outcome.
            since: when the first of its questions was asked, on the event loop's clock.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()  # kept, as in batcher.py
        now = loop.time()
        tick_s = max(since + self._timeout_s - now, min(LEAST_S, self._timeout_s)) / TICKS
        self._call = _Call(prepare, done, loop.call_at(now + tick_s, self._tick), now + tick_s, tick_s)
        if self._is_closed:
            self._finish(LimiterUnavailable("closed"))
        elif self._link is None:
            self._open()
        else:
            self._send(self._link)

    def close(self) -> None:
        """Let go of the connection; a call that waits fails, and so does every later one."""
        self._is_closed = True
        self._drop()
        self._finish(LimiterUnavailable("closed"))

    def reconnect(self) -> None:
        """Use another connection from now on. A call that waits is sent once more."""
        if self._link is not None:
            self._link.abort()
            self.lost(self._link, None)

    def received(self, link: "_Link", answer: Any) -> None:
        """The link's: an answer has come."""
        if link is not self._link:
            return
        if self._call is None:
            self._drop()  # to what? Whatever comes next over this connection cannot be trusted
        elif not isinstance(answer, hiredis.ReplyError):
            self._finish(answer)
        elif str(answer).startswith("NOSCRIPT"):
            self._send(link, with_source=True)
        else:
            # Read-only, out of memory, loading: the next call finds out over a new connection, perhaps elsewhere.
            self._drop()
            self._finish(unavailable(answer))

    def lost(self, link: "_Link", error: Exception | None) -> None:
        """The link's: its connection is gone."""
        if link is not self._link:
            return
        self._link = None
        if self._call is None:
            return
        if self._call.is_sent_again or not link.has_answered:
            self._finish(unavailable(error or ConnectionError("closed by the server")))
        else:
            self._call.is_sent_again = True
            self._open()

    def _open(self) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._connect(), name="keyauth-connect")

    async def _connect(self) -> None:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
        try:
            await connection.connect()
            if self._opening is asyncio.current_task():
                self._link = _Link(self, connection)
                if self._call is not None:
                    self._send(self._link)
        except Exception as error:  # redis-py's own, the system's, or what no Redis has answered
            if self._opening is asyncio.current_task():
                self._finish(unavailable(error))
        finally:
            # Where it was taken over nothing of it is left to close; where the time ran out, all of it.
            await connection.disconnect(nowait=True)

    def _send(self, link: "_Link", *, with_source: bool = False) -> None:
        if self._call is not None:
            try:
                link.send(self._script.pack(self._call.prepare(), with_source=with_source))
            except Exception as error:  # whatever it is, who asked must hear of it
                self._finish(unavailable(error))

    def _tick(self) -> None:
        call = self._call
        if call is None:
            return
        call.ticks_left -= 1
        if call.ticks_left:
            loop = asyncio.get_running_loop()
            call.due += call.tick_s
            if call.due < loop.time():
                call.due = loop.time() + call.tick_s
            call.timer = loop.call_at(call.due, self._tick)
            return
        # A connection whose answer never came must not give it to the next call.
        self._drop()
        self._finish(LimiterUnavailable("TimeoutError"))

    def _drop(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.abort()

    def _finish(self, outcome: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        call.timer.cancel()
        try:
            call.done(outcome)
        except Exception as error:  # an answer of another shape: something that is no Redis
            call.done(unavailable(error))


class _Link(asyncio.Protocol):
    """One connection of a ``Wire``."""

    has_answered = False

    def __init__(self, wire: Wire, connection: Any) -> None:
        self._wire = wire
        self._answers = hiredis.Reader(encoding="utf-8", notEnoughData=_UNFINISHED)
        self._writer = take_over(connection, self)
        self._transport = self._writer.transport

    def send(self, packed: bytes) -> None:
        """Send one packed call."""
        self._transport.write(packed)

    def abort(self) -> None:
        """Close at once; whatever still comes is not looked at."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """The event loop's."""
        try:
            self._answers.feed(data)
            answer = self._answers.gets()
            if answer is not _UNFINISHED and self._answers.has_data():
                raise hiredis.ProtocolError("more than one answer")
        except (hiredis.HiredisError, UnicodeError) as error:
            self.has_answered = False  # it speaks another protocol: asking it again is no use
            self._transport.abort()
            self._wire.lost(self, error)
            return
        if answer is not _UNFINISHED:
            self.has_answered = True
            self._wire.received(self, answer)

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's."""
        self._wire.lost(self, error)


def take_over(connection: Any, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    """Let ``protocol`` have what a connection of redis-py receives from now on.

    Returns:
        What must be kept for as long as its transport is used.
    """
    # redis-py offers no way to its transport. It then takes itself for disconnected, and the writer, which would close
    # the transport with itself, lives on.
    writer: asyncio.StreamWriter = connection._writer
    connection._writer = connection._reader = None
    writer.transport.set_protocol(protocol)
    return writer
