"""One node of a cluster, over a connection that is held: calls are written as they come, answers come in order.

What is asked in one turn of the event loop goes out together in one write. redis-py makes the connection; ``wire.py``
tells why it does no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

from fastapi_keyauth.concurrency.stall_tolerant_timeout import TICKS, stall_tolerant_timeout
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.redis.scripts import unavailable
from fastapi_keyauth.limiter.redis.wire import take_over

_ASKING: bytes = hiredis.pack_command(("ASKING",))
_UNFINISHED = object()

Answer = asyncio.Future[Any]
"""What the node has said; an error that it has said is a result too, a ``hiredis.ReplyError``."""


class NodeLost(Exception):
    """The connection broke, or cannot be made. A call may or may not have been carried out."""


class Node:
    """Calls to one node. Connects when there is something to ask.

    A node that has left a call unanswered for ``timeout_s`` loses its connection, and all that wait on it fail.

    Args:
        create_connection: makes one that is not connected yet, without ``socket_timeout``: the time is taken here.
        timeout_s: seconds for an answer, and for connecting.
    """

    def __init__(self, create_connection: Callable[[], AbstractConnection], timeout_s: float) -> None:
        self._make_connection = create_connection
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._unsent: list[tuple[bytes, bool, Answer]] = []
        self._is_closed = False

    def call(self, packed: bytes, *, is_asking: bool = False) -> Answer:
        """The answer to a packed command. ``is_asking``: on behalf of a slot that is on its way to this node.

        The future may raise ``NodeLost``, or ``LimiterUnavailable`` where no answer came in time.
        """
        future: Answer = asyncio.get_running_loop().create_future()
        if self._is_closed:
            future.set_exception(NodeLost("closed"))
        elif self._link is not None:
            self._link.send(packed, is_asking, future)
        else:
            self._unsent.append((packed, is_asking, future))
            if self._opening is None:
                self._opening = asyncio.create_task(self._connect(), name="keyauth-connect")
        return future

    def waiting(self) -> list[Answer]:
        """The answers that are still to come."""
        futures = [future for _, _, future in self._unsent]
        if self._link is not None:
            futures += self._link.waiting()
        return [future for future in futures if not future.done()]

    def close(self) -> None:
        """Let go of the connection; what waits fails, and so does every later call."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.fail(NodeLost("closed"))
        self._fail_unsent(NodeLost("closed"))

    def lost(self, link: "_Link") -> None:
        """The link's: it is gone."""
        if link is self._link:
            self._link = None

    async def _connect(self) -> None:
        connection = self._make_connection()
        try:
            async with stall_tolerant_timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # untyped in redis-py
            self._link = _Link(self, connection, self._timeout_s)
            unsent, self._unsent = self._unsent, []
            for packed, is_asking, future in unsent:
                self._link.send(packed, is_asking, future)
        except Exception as error:  # redis-py's own, the system's, or what no Redis has answered
            self._fail_unsent(NodeLost(*unavailable(error).args))
        finally:
            self._opening = None
            # Where it was taken over nothing of it is left to close; where the time ran out, all of it.
            await connection.disconnect(nowait=True)

    def _fail_unsent(self, error: NodeLost) -> None:
        unsent, self._unsent = self._unsent, []
        for _, _, future in unsent:
            _fail(future, error)


class _Link(asyncio.Protocol):
    """One connection of a ``Node``."""

    def __init__(self, node: Node, connection: Any, timeout_s: float) -> None:
        self._node = node
        # One more than is waited for: a connection is given up before those who ask give up, so that nobody who comes
        # after them is sent over it.
        self._tick_s = timeout_s / (TICKS + 1)
        self._ticks = 0
        self._loop = asyncio.get_running_loop()
        self._answers = hiredis.Reader(encoding="utf-8", notEnoughData=_UNFINISHED)
        self._waiting: deque[tuple[int, Answer | None]] = deque()
        """Since which tick, and for whom; None for an answer that nobody wants."""
        self._outgoing: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writer = take_over(connection, self)
        self._transport = self._writer.transport

    def send(self, packed: bytes, is_asking: bool, future: Answer) -> None:
        """Send a packed command, at the end of this turn of the loop."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        if is_asking:
            self._outgoing.append(_ASKING)
            self._waiting.append((self._ticks, None))
        self._outgoing.append(packed)
        self._waiting.append((self._ticks, future))
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def waiting(self) -> list[Answer]:
        """The answers that are still to come, wanted or not."""
        return [future for _, future in self._waiting if future is not None]

    def fail(self, error: Exception) -> None:
        """Close at once; all that wait fail. Whatever still comes is not looked at."""
        self._node.lost(self)
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if future is not None:
                _fail(future, error)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        self._transport.write(b"".join(outgoing))

    def _tick(self) -> None:
        self._timer = None
        self._ticks += 1
        if not self._waiting:
            return
        if self._ticks - self._waiting[0][0] >= TICKS:
            # A connection whose answer never came must not give it to the next call.
            self.fail(LimiterUnavailable("TimeoutError"))
        else:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        """The event loop's."""
        try:
            self._answers.feed(data)
            while (answer := self._answers.gets()) is not _UNFINISHED:
                if not self._waiting:
                    raise hiredis.ProtocolError("an answer to no question")
                _, future = self._waiting.popleft()
                if future is not None and not future.done():
                    future.set_result(answer)
        except (hiredis.HiredisError, UnicodeError) as error:
            self.fail(unavailable(error))  # it speaks another protocol: asking it again is no use

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's."""
        self.fail(NodeLost(*unavailable(error or ConnectionError("closed by the server")).args))


def _fail(future: Answer, error: Exception) -> None:
    # One exception object for each: a shared one would collect every asker's traceback.
    if not future.done():
        future.set_exception(type(error)(*error.args))
