"""Lua scripts, and calls of them over a held connection."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

import hiredis

from fastapi_keyauth.concurrency.stall_tolerant_timeout import stall_tolerant_timeout
from fastapi_keyauth.limiter.redis.connection import Connection, ConnectionLost, settle_future
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.limiter.redis.link import Done

MIN_TIMEOUT_S = 0.2
"""Minimum number of seconds for a call, however long its questions have waited: a slow call before it must not cause an
outage. So a question waits at most this much longer than the timeout."""

ScriptArgs = tuple[Sequence[str], Sequence[str | bytes | int]]
"""Keys and arguments of one script call."""
BuildArgs = Callable[[], ScriptArgs]
"""Returns keys and arguments. Called once the connection is established over which they are sent."""


class LuaScript:
    """A Lua script, called by its SHA-1, or with its source if the server does not know it yet.

    Args:
        names: Names of its files in ``lua/``, in the order in which they run.
        uses_time: Whether ``now.lua`` is prepended, which reads the first argument.
    """

    def __init__(self, *names: str, uses_time: bool = True) -> None:
        self._source = b"".join(map(_read_lua, (("now",) if uses_time else ()) + names))
        # Redis names scripts by SHA-1; nothing depends on its strength.
        sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()
        self._by_sha = _bulk("EVALSHA") + _bulk(sha)

    def pack(self, prepared: ScriptArgs, *, with_source: bool = False) -> bytes:
        """Return a call of the script in the Redis protocol.

        Args:
            prepared: Keys and arguments.
            with_source: Whether to send the source instead of its SHA-1.
        """
        keys, args = prepared
        head = _bulk("EVAL") + b"$%d\r\n%b\r\n" % (len(self._source), self._source) if with_source else self._by_sha
        # Not by hiredis, which takes up to three times as long, nor by redis-py, which takes longer than a whole call.
        count = _bulk(len(keys))
        return b"".join((b"*%d\r\n" % (3 + len(keys) + len(args)), head, count, *map(_bulk, keys), *map(_bulk, args)))


@lru_cache(maxsize=64)
def _read_lua(name: str) -> bytes:
    """Return the source of a file. Cached, since each ``KeyAuth`` of a process has the same scripts."""
    return files("fastapi_keyauth.limiter.redis").joinpath("lua", f"{name}.lua").read_bytes()


@lru_cache(maxsize=2048)
def _bulk(value: str | bytes | int) -> bytes:
    """Return a bulk string of the Redis protocol. Cached, since most parts of a call were in one a moment ago."""
    packed = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(packed), packed)


class ScriptCaller:
    """Calls one script over a held connection.

    A call that loses a connection which worked before is sent once more over a new one: most often the server had
    closed it, or a middlebox had forgotten it, while it was idle. If the first one was carried out after all, its units
    are counted twice, unless it has a ``CallRecord``; that never admits more, and one lost connection is not an outage
    in which each worker counts alone.

    Args:
        connection: The connection.
        script: The script.
        timeout_s: Seconds for a call, connecting and the second try included.
    """

    def __init__(self, connection: Connection, script: LuaScript, timeout_s: float) -> None:
        self._connection = connection
        self._script = script
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, build: BuildArgs, done: Done, since: float | None = None, *, is_alone: bool = False) -> None:
        """Call the script.

        Args:
            build: Returns keys and arguments.
            done: Called with the outcome: the answer or a ``LimiterUnavailable``. If it raises on an answer, which then
                has another shape than that of the script, it is called again with a ``LimiterUnavailable``.
            since: Time on the event loop's clock from which the timeout counts; default: now.
            is_alone: Whether no other call is likely to be made in this turn of the event loop.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()  # kept, as in batcher.py
        until = (loop.time() if since is None else since) + self._timeout_s
        _Call(self._connection, self._script, build, done, loop, until, min(MIN_TIMEOUT_S, self._timeout_s), is_alone)

    async def run(self, build: BuildArgs) -> Any:
        """Call the script and return its answer.

        Raises:
            LimiterUnavailable: If the server does not answer in time or cannot run the script.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with stall_tolerant_timeout(self._timeout_s):
                self.call(build, partial(settle_future, future))
                return await future
        except TimeoutError as error:
            raise unavailable(error) from error


class _Call:
    """One call of a script, until its outcome."""

    __slots__ = (
        "_build",
        "_connection",
        "_done",
        "_is_alone",
        "_is_retried",
        "_loop",
        "_min_s",
        "_script",
        "_until",
        "_with_source",
    )

    def __init__(
        self,
        connection: Connection,
        script: LuaScript,
        build: BuildArgs,
        done: Done,
        loop: asyncio.AbstractEventLoop,
        until: float,
        min_s: float,
        is_alone: bool,
    ) -> None:
        self._connection = connection
        self._script = script
        self._build = build
        self._done = done
        self._loop = loop
        self._until = until
        self._min_s = min_s
        self._is_alone = is_alone
        self._is_retried = False
        self._with_source = False
        self._send()

    def _send(self) -> None:
        seconds = max(self._until - self._loop.time(), self._min_s)
        self._connection.call(self._pack, self._received, seconds, is_alone=self._is_alone)

    def _pack(self) -> bytes:
        return self._script.pack(self._build(), with_source=self._with_source)

    def _received(self, answer: Any) -> None:
        if isinstance(answer, hiredis.ReplyError):
            if str(answer).startswith("NOSCRIPT") and not self._with_source:
                self._with_source = True
                self._send()
                return
            # Read-only, out of memory, loading: the next call finds out over a new connection, perhaps elsewhere.
            self._connection.reconnect()
            answer = unavailable(answer)
        elif isinstance(answer, ConnectionLost) and answer.has_answered and not self._is_retried:
            self._is_retried = True
            self._with_source = False
            self._send()
            return
        try:
            self._done(answer)
        except Exception as error:  # an answer of another shape: a server that is not Redis
            self._connection.reconnect()
            self._done(unavailable(error))
