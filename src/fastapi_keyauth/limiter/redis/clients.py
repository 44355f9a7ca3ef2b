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
    # Name and version of redis-py. Otherwise each connection would read them from disk, in the event loop.
    _LIBRARY = {"driver_info": DriverInfo()}


KEEPALIVE_IDLE_S = 60
"""Seconds without traffic before TCP keepalive probes a connection. NATs and load balancers of clouds silently forget
connections that were idle for 240 to 600 s."""
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_KEEPALIVE_INTERVAL_S = 15
_KEEPALIVE_PROBES = 4


def _keepalive_options() -> dict[str, Any]:
    """Return redis-py's options for TCP keepalive, as far as this system has them. Its old versions set none."""
    values = {
        # macOS has another name for it.
        getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)): KEEPALIVE_IDLE_S,
        getattr(socket, "TCP_KEEPINTVL", None): _KEEPALIVE_INTERVAL_S,
        getattr(socket, "TCP_KEEPCNT", None): _KEEPALIVE_PROBES,
    }
    known = {option: value for option, value in values.items() if option is not None}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


class ClientFactory:
    """Creates clients of redis-py.

    Clients have no timeouts of their own: callers limit the time of everything that they do, connecting included. Only
    Sentinels have timeouts, so that there is time for the next one.

    Args:
        url: The Redis URL.
        timeout_s: Seconds for a call.

    Raises:
        SetupError: If an option of the URL is unknown to redis-py, or has an invalid value.
    """

    def __init__(self, url: RedisUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        try:
            chosen = parse_url(url.url)
            self._options: dict[str, Any] = {
                "socket_timeout": None,
                "socket_connect_timeout": None,
                "retry": Retry(NoBackoff(), 0),  # outages are handled in one place: limiter/failover.py
                "decode_responses": True,
                "protocol": 2,  # RESP2 is enough for integers and strings, and needs no HELLO
                **({} if {"lib_name", "lib_version"} & chosen.keys() else _LIBRARY),
                **({} if "path" in chosen else _keepalive_options()),  # a Unix socket has none
                **chosen,
            }
            # Raises if redis-py does not know an option; nothing connects yet.
            self.create_connection()
            self._sentinel = self._create_sentinel() if url.kind == "sentinel" else None
        except (RedisError, ValueError, TypeError):
            raise SetupError(f"The Redis URL {masked_url(url.url)} is invalid.") from None

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
        """Create a connection to one server. It is not connected yet.

        Args:
            address: Host and port. None: the first server that the URL names.
        """
        options = self._options if address is None else {**self._options, "host": address[0], "port": address[1]}
        connection: AbstractConnection = ConnectionPool(**options).make_connection()  # type: ignore[no-untyped-call]  # untyped
        return connection

    @asynccontextmanager
    async def borrow(self, address: Address | None = None) -> AsyncIterator[Redis]:
        """Create a client for the duration of a context, for plain commands.

        Args:
            address: Host and port of the server. None: as ``create``.
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
        """Close a client within the time of a call. With TLS, asyncio waits 30 s for a server that hangs.

        Args:
            client: The client.
        """
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await client.aclose()

    def create(self, **options: Any) -> Redis:
        """Create a client. It is not connected yet, and connects to the server that the URL names, or to the primary
        that the Sentinels name at that time.

        Args:
            **options: Options of redis-py for each connection.
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
        """Return the primary according to the first Sentinel that responds. None if none responds in time.

        Args:
            client: A client from ``create``.
        """
        try:
            # If it has changed, idle connections to the former one are closed. With TLS that takes 30 s if it hangs.
            async with asyncio.timeout(self._timeout_s):
                host, port = await client.connection_pool.get_master_address()  # type: ignore[attr-defined]  # of Sentinels' pools
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
        states = [
            masters[self._url.service] for masters in await self._query_sentinels() if self._url.service in masters
        ]
        return bool(states) and all(
            (state["ip"], state["port"]) == server and state["role-reported-time"] >= settled_s * 1000
            for state in states
        )

    async def is_service_unknown(self) -> bool:
        """Return whether Sentinels respond and none of them knows the service."""
        found = await self._query_sentinels()
        return bool(found) and not any(self._url.service in masters for masters in found)

    async def _query_sentinels(self) -> list[dict[str, Any]]:
        """Return the primaries of all services, by service, from each Sentinel that responds."""
        queries = (one.sentinel_masters() for one in (self._sentinel.sentinels if self._sentinel else ()))
        answers = await asyncio.gather(*queries, return_exceptions=True)
        return [masters for masters in answers if isinstance(masters, dict)]

    async def close(self) -> None:
        """Close the connections to Sentinels."""
        if self._sentinel is not None:
            await asyncio.gather(*map(self.close_client, self._sentinel.sentinels))

    def _create_sentinel(self) -> Sentinel:
        # All of them, one after the other, and then the primary, within the time of one call.
        share_s = self._timeout_s / (len(self._url.addresses) + 1)
        credentials = self._url.sentinel_options
        tls = {name: value for name, value in self._options.items() if name.startswith("ssl_")}
        options = {
            **tls,
            "ssl": self._options.get("connection_class") is SSLConnection,
            "username": credentials.get("sentinel_username"),
            "password": credentials.get("sentinel_password"),
            "socket_timeout": share_s,
            "socket_connect_timeout": share_s,
            # Once more if the Sentinel had closed an idle connection, but not if it does not respond.
            "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            "decode_responses": True,
            "protocol": 2,
            **_keepalive_options(),
            **_LIBRARY,
        }
        return Sentinel(list(self._url.addresses), sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # untyped in redis-py
