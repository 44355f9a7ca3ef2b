"""The connection that every request waits for: a held one, straight between hiredis and the event loop.

redis-py makes it (TLS, password, database, whatever the URL asks for); then its transport is taken over. Going through
redis-py's pool, timeouts and streams for each call costs the process three times as much as all of the call besides.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.calls import Prepare, Script, unavailable

Done = Callable[[Any], None]
"""Called once with the answer, or with a LimiterUnavailable."""
_UNFINISHED = object()


class Wire:
    """Calls one script, one call at a time, over a connection that is made when there is none.

    A call that finds its connection closed (by the server, for lying idle) is sent once more over a new one.

    Args:
        client: makes connections; without ``socket_timeout``, as the time is taken here.
        script: what is called.
        timeout_s: seconds for a call, connecting included.
    """

    def __init__(self, client: Redis, script: Script, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._script = script
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._call: tuple[Prepare, Done, asyncio.TimerHandle] | None = None

    def call(self, prepare: Prepare, done: Done) -> None:
        """Call the script with what ``prepare`` gives, once a connection stands."""
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._time_out)
        self._call = (prepare, done, timer)
        if self._link is None:
            self._open()
        else:
            self._link.send(self._script.pack(prepare()))

    def close(self) -> None:
        """Let go of the connection; a call that waits fails."""
        self._drop()
        self._finish(LimiterUnavailable("closed"))

    def _open(self) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._connect(), name="keyauth-connect")

    async def _connect(self) -> None:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
        try:
            await connection.connect()
            link = _Link(self, connection)
        except (RedisError, OSError, TimeoutError) as error:
            self._finish(unavailable(error))
        else:
            self._link = link
            if self._call is not None:
                link.send(self._script.pack(self._call[0]()))
        finally:
            # Where it was taken over nothing of it is left to close; where the time ran out, all of it.
            await connection.disconnect(nowait=True)

    def received(self, answer: Any) -> None:
        """The link's: an answer has come."""
        if self._call is None or self._link is None:
            return
        if not isinstance(answer, hiredis.ReplyError):
            self._finish(answer)
        elif str(answer).startswith("NOSCRIPT"):
            self._link.send(self._script.pack(self._call[0](), with_source=True))
        else:
            # Read-only, out of memory, loading: the next call finds out over a new connection, perhaps elsewhere.
            self._drop()
            self._finish(unavailable(answer))

    def lost(self, link: "_Link", error: Exception | None) -> None:
        """The link's: its connection is gone."""
        if link is not self._link:
            return
        self._link = None
        if self._call is not None:
            if link.has_answered:
                self._open()
            else:
                self._finish(unavailable(error or ConnectionError("closed by the server")))

    def _time_out(self) -> None:
        # A connection whose answer never came must not give it to the next call.
        self._drop()
        self._finish(LimiterUnavailable("TimeoutError"))

    def _drop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        link, self._link = self._link, None
        if link is not None:
            link.abort()

    def _finish(self, outcome: Any) -> None:
        if self._call is not None:
            _, done, timer = self._call
            self._call = None
            timer.cancel()
            done(outcome)


class _Link(asyncio.Protocol):
    """One connection of a :class:`Wire`."""

    has_answered = False

    def __init__(self, wire: Wire, connection: Any) -> None:
        self._wire = wire
        self._answers = hiredis.Reader(encoding="utf-8", notEnoughData=_UNFINISHED)
        # redis-py offers no way to its transport. It then takes itself for disconnected, and the writer, which would
        # close the transport with itself, lives on here.
        self._writer: asyncio.StreamWriter = connection._writer
        connection._writer = connection._reader = None
        self._transport = self._writer.transport
        self._transport.set_protocol(self)

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
        except hiredis.HiredisError as error:
            self._transport.abort()
            self._wire.lost(self, error)
            return
        if answer is not _UNFINISHED:
            self.has_answered = True
            self._wire.received(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's."""
        self._wire.lost(self, error)
