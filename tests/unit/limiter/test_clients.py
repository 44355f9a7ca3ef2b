"""Clients of redis-py: their options, and time limits that redis-py does not have."""

import asyncio
import socket
from importlib import metadata
from typing import Any

import pytest

from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.settings.redis_urls import parse_redis_url


async def test_finding_the_primary_does_not_wait_for_a_former_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the primary changes, redis-py closes idle connections to the former one; with TLS it waits 30 s."""
    clients = ClientFactory(parse_redis_url("redis+sentinel://127.0.0.1:1/mymaster"), 0.05)
    client = clients.create()
    sentinels = clients._sentinel
    assert sentinels is not None

    async def discover(service: str) -> tuple[str, int]:
        return "127.0.0.1", 2

    async def hang(inuse_connections: bool) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(sentinels, "discover_master", discover)
    monkeypatch.setattr(client.connection_pool, "disconnect", hang)
    async with asyncio.timeout(10):
        assert await clients.find_primary(client) is None
        assert await clients.find_primary(client) == ("127.0.0.1", 2)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/mymaster"])
def test_creating_a_connection_reads_nothing_from_disk(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, redis-py reads its own version from disk for each connection, in the event loop."""
    looked_up: list[str] = []
    monkeypatch.setattr(metadata, "version", looked_up.append)
    clients = ClientFactory(parse_redis_url(url), 0.05)
    clients.create().connection_pool.make_connection()
    if clients._sentinel is not None:
        clients._sentinel.sentinels[0].connection_pool.make_connection()
    clients.create_connection(("127.0.0.1", 2))
    assert looked_up == []


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated usage")
def test_a_library_name_in_the_url_is_sent_to_redis() -> None:
    made: Any = ClientFactory(parse_redis_url("redis://127.0.0.1:1?lib_name=mine"), 0.05).create_connection()
    said = made.driver_info.formatted_name if hasattr(made, "driver_info") else made.lib_name
    assert said == "mine"


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1/0", "redis+sentinel://127.0.0.1/main", "redis+cluster://127.0.0.1", "rediss://127.0.0.1"]
)
def test_connections_are_kept_alive_whatever_the_version_of_redis_py(url: str) -> None:
    clients = ClientFactory(parse_redis_url(url), 1.0)
    connection = clients.create_connection()
    assert connection.socket_keepalive is True  # type: ignore[attr-defined]  # of a TCP connection
    options = connection.socket_keepalive_options  # type: ignore[attr-defined]  # as above
    assert 0 < options[socket.TCP_KEEPIDLE] <= 240
    assert options[socket.TCP_KEEPINTVL] * options[socket.TCP_KEEPCNT] <= 60


def test_the_url_decides_about_keepalive() -> None:
    clients = ClientFactory(parse_redis_url("redis://127.0.0.1/0?socket_keepalive=no"), 1.0)
    assert clients.create_connection().socket_keepalive is False  # type: ignore[attr-defined]  # as above


def test_a_unix_socket_has_no_options_of_tcp() -> None:
    ClientFactory(parse_redis_url("unix:///tmp/redis.sock"), 1.0).create_connection()
