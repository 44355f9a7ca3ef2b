"""redis-py clients for each form of the Redis URL. They only create connections; the limiter speaks over them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.settings.redis_urls import Address, RedisUrl
from fastapi_keyauth.settings.urls import masked_url

try:
    from redis import DriverInfo
except ImportError:
    _LIBRARY: dict[str, Any] = {}  # redis-py before 7.2
else:
    # What a connection tells of redis-py. Left to itself each looks the version up on disk, in the event loop.
    _LIBRARY = {"driver_info": DriverInfo()}


KEEPALIVE_IDLE_S = 60
"""Seconds without traffic before TCP keepalive probes a connection. NATs and load balancers of clouds silently forget
connections that were idle for 240 to 600 s."""
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_KEEPALIVE_INTERVAL_S = 15
_KEEPALIVE_PROBES = 4


def _keepalive_options() -> dict[str, Any]:
    """Return redis-py's options for TCP keepalive, as far as this system has them. Old versions of it set none."""
    values = {
        # macOS calls it by another name.
        getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)): KEEPALIVE_IDLE_S,
        getattr(socket, "TCP_KEEPINTVL", None): _KEEPALIVE_INTERVAL_S,
        getattr(socket, "TCP_KEEPCNT", None): _KEEPALIVE_PROBES,
    }
    known = {option: value for option, value in values.items() if option is not None}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


class ClientFactory:
    """Makes clients, each to be closed by who had it made.

    Args:
        url: where the servers are.
        timeout_s: seconds for a call. Who calls takes the time, once for all that it does, connecting included; the
            Sentinels alone have timeouts of their own, so that there is time for the next.

    Raises:
        SetupError: an option of the URL is none of redis-py's, or cannot be read.
    """

    def __init__(self, url: RedisUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        try:
            chosen = parse_url(url.url)
            self._options: dict[str, Any] = {
                "socket_timeout": None,
                "socket_connect_timeout": None,
                "retry": Retry(
                    NoBackoff(), 0
                ),  # what to do about an outage is decided in one place: limiter/failover.py
                "decode_responses": True,
                "protocol": 2,  # RESP2 serves for integers and strings, and spares old servers a HELLO
                **({} if {"lib_name", "lib_version"} & chosen.keys() else _LIBRARY),
                **({} if "path" in chosen else _keepalive_options()),  # a Unix socket has none
                **chosen,
            }
            # An option that redis-py does not know shows here; nothing connects yet.
            self.create_connection()
            self._sentinel = self._make_sentinel() if url.kind == "sentinel" else None
        except (RedisError, ValueError, TypeError):
            raise SetupError(f"The Redis URL {masked_url(url.url)} cannot be understood.") from None

    def check_tls(self) -> None:
        """Check that the files can be used which the URL names for TLS.

        Raises:
            SetupError: If a file is missing or has another format.
        """
        connection = self.create_connection()
        if not isinstance(connection, SSLConnection):
            return
        where = f"The Redis URL {masked_url(self._url.url)}"
        missing = [name for name in _TLS_FILES if self._options.get(name) and not Path(self._options[name]).exists()]
        if missing:
            raise SetupError(f"{where} names a file in {missing[0]} that does not exist.")
        try:
            connection.ssl_context.get()
        except (OSError, ValueError, RedisError) as error:
            raise SetupError(f"{where} names TLS files that cannot be used ({unavailable(error)}).") from None

    def create_connection(self, address: Address | None = None) -> AbstractConnection:
        """A connection to one server, not connected yet: to that at ``address``, or to the first that the URL names."""
        options = self._options if address is None else {**self._options, "host": address[0], "port": address[1]}
        made: AbstractConnection = ConnectionPool(**options).make_connection()  # type: ignore[no-untyped-call]  # untyped
        return made

    @asynccontextmanager
    async def borrow(self, address: Address | None = None) -> AsyncIterator[Redis]:
        """A client for the block alone: of the server at ``address``, or of the one that ``make`` would choose. It is
        for plain commands: an answer that comes too late must not be taken for that to another question.
        """
        if address is None:
            client = self.create()
        else:
            client = Redis.from_pool(ConnectionPool(**{**self._options, "host": address[0], "port": address[1]}))
        try:
            yield client
        finally:
            await self.close_client(client)

    async def close_client(self, client: Redis) -> None:
        """Close a client, within the time of a call: by TLS it waits for the other side to take leave, and where that
        hangs, for asyncio's 30 s.
        """
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await client.aclose()

    def create(self, **options: Any) -> Redis:
        """A client, not connected yet, of the server that the URL names, or of the primary that the Sentinels know at
        the time of each connection. Options are redis-py's, of each connection.
        """
        options = {**self._options, **options}
        pool: ConnectionPool
        if self._sentinel is None:
            pool = ConnectionPool(**options)
        else:
            is_tls = options.pop("connection_class", None) is SSLConnection
            options = {name: value for name, value in options.items() if name not in ("host", "port")}
            # untyped in redis-py
            pool = SentinelConnectionPool(self._url.service, self._sentinel, ssl=is_tls, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)

    async def find_primary(self, client: Redis) -> Address | None:
        """What the first Sentinel that answers takes for the primary; None where none does in time."""
        try:
            # Where it is another one than before, idle connections to that are closed, and one by TLS waits for the
            # other side to take leave: 30 s where it hangs.
            async with asyncio.timeout(self._timeout_s):
                host, port = await client.connection_pool.get_master_address()  # type: ignore[attr-defined]  # a Sentinel's
        except (RedisError, TimeoutError):
            return None
        return str(host), int(port)

    async def is_settled(self, server: Address | None, settled_s: float) -> bool:
        """Return whether all Sentinels that respond, at least one, agree on a primary and have done so for a while.

        Args:
            server: The host and port that they must agree on.
            settled_s: Seconds for which they must have agreed.
        """
        if self._sentinel is None:
            return True
        states = [masters[self._url.service] for masters in await self._ask_sentinels() if self._url.service in masters]
        return bool(states) and all(
            (state["ip"], state["port"]) == server and state["role-reported-time"] >= settled_s * 1000
            for state in states
        )

    async def is_service_unknown(self) -> bool:
        """Whether there are Sentinels that answer, and none watches over a service of this name."""
        found = await self._ask_sentinels()
        return bool(found) and not any(self._url.service in masters for masters in found)

    async def _ask_sentinels(self) -> list[dict[str, Any]]:
        """Of each Sentinel that answers, its services and what it knows of their primaries."""
        asked = (one.sentinel_masters() for one in (self._sentinel.sentinels if self._sentinel else ()))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [masters for masters in answers if isinstance(masters, dict)]

    async def close(self) -> None:
        """Close the connections to Sentinels."""
        if self._sentinel is not None:
            await asyncio.gather(*map(self.close_client, self._sentinel.sentinels))

    def _make_sentinel(self) -> Sentinel:
        # All of them, one after the other and the primary besides, within the time of one call.
        patience_s = self._timeout_s / (len(self._url.addresses) + 1)
        own = self._url.sentinel_options
        tls = {name: value for name, value in self._options.items() if name.startswith("ssl_")}
        options = {
            **tls,
            "ssl": self._options.get("connection_class") is SSLConnection,
            "username": own.get("sentinel_username"),
            "password": own.get("sentinel_password"),
            "socket_timeout": patience_s,
            "socket_connect_timeout": patience_s,
            # Once more where it had closed the connection while it lay idle; not where it does not answer.
            "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            "decode_responses": True,
            "protocol": 2,
            **_keepalive_options(),
            **_LIBRARY,
        }
        return Sentinel(list(self._url.addresses), sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # as above
