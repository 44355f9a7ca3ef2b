"""Faults of the servers, and how each is undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import redis

from tests.helpers.servers import Server


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Fault:
    """One way in which a server becomes unavailable. Its functions block; one long-lived thread calls them.

    Attributes:
        name: Name in the table.
        begin: Called once.
        again: Called every ``AGAIN_S`` while the fault lasts.
        end: Called once; when it returns, the server is available again.
        loses_data: Whether Redis comes back empty.
        spares_database: Whether PostgreSQL stays available throughout.
        ends_worker: Whether a worker is killed meanwhile; the fault then lasts until a replacement serves.
    """

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]
    again: Callable[[], None] = _nothing
    loses_data: bool = False
    spares_database: bool = True
    ends_worker: bool = False


AGAIN_S = 0.05


class RedisFaults:
    """Faults of one Redis or Valkey.

    Args:
        server: The server.
        keeps_data: Whether it writes each change to disk before it responds, so that a kill loses nothing.
    """

    def __init__(self, server: Server, keeps_data: bool) -> None:
        self._server = server
        self.keeps_data = keeps_data

    def all(self) -> list[Fault]:
        """Return each fault once."""
        server = self._server
        emptied = Fault("Redis restarted empty", server.restart, _nothing, loses_data=True)
        return [
            self._killed(),
            Fault("Redis hung (SIGSTOP)", server.stop, server.cont),
            *([] if self.keeps_data else [emptied]),
            Fault("Redis a read-only replica", self._say("REPLICAOF 127.0.0.1 1"), self._say("REPLICAOF NO ONE")),
            Fault("Redis out of memory", self._say("CONFIG SET maxmemory 1"), self._say("CONFIG SET maxmemory 0")),
            Fault("Redis forgets its scripts", _nothing, _nothing, again=self._say("SCRIPT FLUSH")),
            Fault("connections to Redis cut", _nothing, _nothing, again=self._say("CLIENT KILL TYPE normal")),
        ]

    def with_a_worker(self) -> Fault:
        """Return a fault in which a worker is killed, so that its replacement starts without Redis."""
        return replace(self._killed(), name="a worker killed during an outage", ends_worker=True)

    def _killed(self) -> Fault:
        return Fault("Redis killed", self._server.kill, self._server.restart, loses_data=not self.keeps_data)

    def _say(self, command: str) -> Callable[[], None]:
        def say() -> None:
            with redis.Redis.from_url(self._server.url, socket_timeout=10) as client:
                client.execute_command(*command.split())

        return say


def postgres_faults(server: Server) -> list[Fault]:
    """Return the faults of one PostgreSQL."""
    return [
        Fault("PostgreSQL killed", server.kill, server.restart, spares_database=False),
        Fault("PostgreSQL hung (SIGSTOP)", server.stop, server.cont, spares_database=False),
    ]


def together(first: Fault, second: Fault) -> Fault:
    """Combine faults of two different servers into one."""

    def both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            one()
            other()

        return run

    return Fault(
        "Redis and PostgreSQL at once",
        both(first.begin, second.begin),
        both(first.end, second.end),
        again=both(first.again, second.again),
        loses_data=first.loses_data or second.loses_data,
        spares_database=first.spares_database and second.spares_database,
    )
