"""The transport of a connection to Redis, with the callbacks of the calls that wait for their answers."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.settings.redis_urls import Address

_ASKING: bytes = hiredis.pack_command(("ASKING",))
_UNFINISHED = object()

Done = Callable[[Any], None]
"""Called with what the server answered, a ``hiredis.ReplyError`` included, or with a ``LimiterUnavailable``."""


class Link(asyncio.Protocol):
    """The transport of a connected ``Connection``, until it is lost.

    Args:
        connection: A connection of redis-py that is connected. Its transport is taken over.
        on_answers: Called with this link when answers have arrived, before they are handed out.
        on_loss: Called with this link and the error when it can no longer be used.

    Attributes:
        address: Host and port.
        has_answered: Whether the server has ever answered over it.
        is_doubtful: Whether the calls that wait were sent after it was idle, so that it may be forgotten.
        is_unsure: Whether nothing was answered since a call that was sent after a short pause; see
            ``Connection.is_unsure``.
    """

    def __init__(
        self,
        connection: Any,
        on_answers: Callable[["Link"], None],
        on_loss: Callable[["Link", Exception], None],
    ) -> None:
        host = getattr(connection, "host", None)
        self.address: Address | None = None if host is None else (host, connection.port)
        self.has_answered = False
        self.is_doubtful = False
        self.is_unsure = False
        self._on_answers = on_answers
        self._on_loss = on_loss
        self._loop = asyncio.get_running_loop()
        self._answered_at = self._loop.time()
        self._reader = hiredis.Reader(encoding="utf-8", notEnoughData=_UNFINISHED)
        self._waiting: deque[Done | None] = deque()
        """Callbacks of the calls that were written; None for an answer that is ignored."""
        self._unwritten: list[tuple[bytes, Done | None]] = []
        # redis-py does not expose its transport. It then considers itself disconnected. The writer is kept, since it
        # would close the transport when it is deleted.
        self._writer: asyncio.StreamWriter = connection._writer
        connection._writer = connection._reader = None
        self._transport = self._writer.transport
        self._transport.set_protocol(self)

    @property
    def is_busy(self) -> bool:
        """Whether calls wait for their answers."""
        return bool(self._waiting) or bool(self._unwritten)

    def idle_s(self) -> float:
        """Return the seconds since the last answer."""
        return self._loop.time() - self._answered_at

    def send(self, packed: bytes, done: Done, is_alone: bool, is_asking: bool) -> None:
        """Write a packed command, or have it written at the end of this turn of the event loop."""
        if is_alone and not self._unwritten:
            self._waiting.append(done)
            self._transport.write(packed)
            return
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        if is_asking:
            self._unwritten.append((_ASKING, None))
        self._unwritten.append((packed, done))

    def abort(self) -> list[Done]:
        """Close the transport, and ignore whatever still comes. Return the callbacks of all calls that wait."""
        self._transport.abort()
        waiting = [*self._waiting, *(done for _, done in self._unwritten)]
        self._waiting.clear()
        self._unwritten.clear()
        return [done for done in waiting if done is not None]

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if unwritten:
            self._waiting.extend([done for _, done in unwritten])
            self._transport.write(b"".join([packed for packed, _ in unwritten]))

    def data_received(self, data: bytes) -> None:
        """Hand out answers. Called by the event loop."""
        reader = self._reader
        try:
            reader.feed(data)
            answers = []
            while (answer := reader.gets()) is not _UNFINISHED:
                answers.append(answer)
            left = len(self._waiting) - len(answers)
            if left < 0 or (left == 0 and reader.has_data()):
                # Before any is handed out: a callback may send a call, which the next answer would be taken for.
                raise hiredis.ProtocolError("an answer to no question")
        except (hiredis.HiredisError, UnicodeError) as error:
            self._on_loss(self, unavailable(error))  # it speaks another protocol: another call is useless
            return
        if not answers:
            return
        self.has_answered = True
        # Both: in a flood that began after a pause, the connection may never be idle again.
        self.is_doubtful = self.is_unsure = False
        self._answered_at = self._loop.time()
        answered = [self._waiting.popleft() for _ in answers]
        self._on_answers(self)
        for done, answer in zip(answered, answers, strict=True):
            if done is not None:
                done(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Report the loss. Called by the event loop."""
        self._on_loss(self, error or ConnectionError("closed by the server"))
