"""Lua scripts, and calls of them that are seldom made."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from fastapi_keyauth.errors import LimiterUnavailable

_REFUSALS = re.compile(
    "AuthenticationError|WRONGPASS|NOAUTH|permission|unknown command|DB index|cluster support disabled"
    "|not allowed in cluster mode|MovedError|CROSSSLOT|no Sentinel knows|CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
    "|RECORD_LAYER_FAILURE|InvalidResponse|ProtocolError"
)
"""By the words: what redis-py says in a class of error of its own, hiredis and a Sentinel's list say in the text."""

ScriptArgs = tuple[Sequence[str], Sequence[str | int]]
"""Names of keys, and arguments, of one script call."""
BuildArgs = Callable[[], ScriptArgs]
"""Gives them once the connection stands, and no later one is used."""


class LuaScript:
    """A Lua script, called by its SHA-1, or with its source if the server does not know it yet.

    Args:
        name: Name of its file in ``lua/``.
        uses_time: Whether ``now.lua`` is prepended, which reads the first argument.
    """

    def __init__(self, name: str, *, uses_time: bool = True) -> None:
        self._source = (_read_lua("now") if uses_time else b"") + _read_lua(name)
        # Redis names scripts by SHA-1; nothing is protected by it.
        sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()
        self._by_sha = _bulk("EVALSHA") + _bulk(sha)

    def pack(self, prepared: ScriptArgs, *, with_source: bool = False) -> bytes:
        """A call of the script as it goes over the wire."""
        keys, args = prepared
        head = _bulk("EVAL") + b"$%d\r\n%b\r\n" % (len(self._source), self._source) if with_source else self._by_sha
        # Not by hiredis, which takes up to three times as long, nor by redis-py, which takes longer than the call.
        count = _bulk(len(keys))
        return b"".join((b"*%d\r\n" % (3 + len(keys) + len(args)), head, count, *map(_bulk, keys), *map(_bulk, args)))


def _read_lua(name: str) -> bytes:
    return files("fastapi_keyauth.limiter.redis").joinpath("lua", f"{name}.lua").read_bytes()


@lru_cache(maxsize=2048)
def _bulk(value: str | int) -> bytes:
    """A bulk string of the Redis protocol, remembered: most parts of a call were in one a moment ago."""
    packed = str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(packed), packed)


class ScriptCaller:
    """Calls a script by any connection of a client; several calls may run at once. The script may run twice.

    Args:
        client: has the connections. Without ``socket_timeout``: the time is taken here, once for the whole call.
        script: what is called.
        timeout_s: seconds for a call, connecting included.
    """

    def __init__(self, client: Redis, script: LuaScript, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._script = script
        self._timeout_s = timeout_s

    async def run(self, prepare: BuildArgs) -> Any:
        """Call it with what ``prepare`` gives.

        Raises:
            LimiterUnavailable: the server does not answer in time, or cannot run the script.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._run(prepare)
                except (RedisConnectionError, OSError):
                    return await self._run(prepare)  # a connection that was closed while it lay idle: once more
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error

    async def _run(self, prepare: BuildArgs) -> Any:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
        try:
            return await self._call(connection, prepare())
        except BaseException:
            # A connection whose answer never came must not give it to the next caller.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _call(self, connection: AbstractConnection, prepared: ScriptArgs) -> Any:
        await connection.send_packed_command(self._script.pack(prepared))
        try:
            return await connection.read_response()
        except NoScriptError:
            await connection.send_packed_command(self._script.pack(prepared, with_source=True))
            return await connection.read_response()


def unavailable(error: BaseException) -> LimiterUnavailable:
    """What an error of the connection or of the server means for who asked."""
    # What the server says ("NOPERM ...") helps whoever reads the log; it repeats no argument of ours.
    said = str(error).splitlines()[:1]
    if isinstance(error, MasterNotFoundError):
        # What follows shows clients, in old versions with their passwords.
        sentence, _, problems = said[0].partition(" : ")
        said = [f"{sentence} (AuthenticationError)" if "AuthenticationError" in problems else sentence]
    return LimiterUnavailable(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)


def is_refusal(error: LimiterUnavailable) -> bool:
    """Whether a server is there and will have none of it, which time does not heal: a wrong password, a right that is
    lacking, a database that it does not have, a cluster where one server was named, a certificate that is not trusted,
    another protocol.
    """
    return _REFUSALS.search(str(error)) is not None
