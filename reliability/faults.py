"""What is done to the servers, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import redis

from tests.helpers.servers import Server


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Fault:
    """One way in which a server goes away. Its functions block, and are called from one thread that lives on.

    Attributes:
        name: for the table.
        begin: called once.
        again: called every ``AGAIN_S`` while it lasts.
        end: called once; when it returns, the server is back.
        loses_data: whether Redis comes back empty.
        spares_database: whether PostgreSQL is there all the while.
        ends_worker: whether a worker is killed amid it; then it lasts until another one serves in its place.
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
        server: the server.
        keeps_data: whether it writes what it is told to disk before it answers, so that a kill loses nothing.
    """

    def __init__(self, server: Server, keeps_data: bool) -> None:
        self._server = server
        self.keeps_data = keeps_data

    def all(self) -> list[Fault]:
        """Each fault once."""
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
        """A worker killed, so that another one starts without Redis."""
        return replace(self._killed(), name="a worker killed amid an outage", ends_worker=True)

    def _killed(self) -> Fault:
        return Fault("Redis killed", self._server.kill, self._server.restart, loses_data=not self.keeps_data)

    def _say(self, command: str) -> Callable[[], None]:
        def say() -> None:
            with redis.Redis.from_url(self._server.url, socket_timeout=10) as client:
                client.execute_command(*command.split())

        return say


def postgres_faults(server: Server) -> list[Fault]:
    """Faults of one PostgreSQL."""
    return [
        Fault("PostgreSQL killed", server.kill, server.restart, spares_database=False),
        Fault("PostgreSQL hung (SIGSTOP)", server.stop, server.cont, spares_database=False),
    ]


def together(first: Fault, second: Fault) -> Fault:
    """Two faults of different servers at once."""

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
