"""Groups of real Valkey servers: a cluster, and a primary with replicas monitored by Sentinels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.helpers.processes import wait_until
from tests.helpers.servers import PASSWORD, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.session import Servers

READY_S = 20.0
RANGES = ((0, 5460), (5461, 10922), (10923, 16383))
CALM_MS, HASTY_MS = 15_000, 500
"""Silence that a node may keep before it is failed over: too long for a busy machine, and short for failover tests."""
SERVICE = "keyauth-tests"
SENTINEL_PASSWORD = PASSWORD[::-1]


class Group:
    """Servers addressed by their roles; each has a client for the test's own use."""

    def __init__(self) -> None:
        self.servers: list[RedisServer] = []
        self.clients: dict[RedisServer, redis.Redis] = {}
        self._cleanup = ExitStack()

    def add(self, server: RedisServer) -> None:
        """Add a server."""
        self.servers.append(server)
        retry = Retry(NoBackoff(), 1)  # Use a new connection if the server was restarted.
        client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2, socket_timeout=5, retry=retry)
        self.clients[server] = self._cleanup.enter_context(client)

    def close(self) -> None:
        """Close the clients; the session ends the servers."""
        self._cleanup.close()

    def ask(self, server: RedisServer, *command: str | int) -> Any:
        """Return one server's response to a command."""
        return self.clients[server].execute_command(*command)

    def is_primary(self, server: RedisServer) -> bool:
        """Return whether the server reports itself as primary; False if it does not respond."""
        try:
            return bool(self.ask(server, "ROLE")[0] == "master")
        except redis.RedisError:
            return False

    def primaries(self, besides: RedisServer | None = None) -> list[RedisServer]:
        """Return the servers that report themselves as primaries. ``besides`` is skipped."""
        return [server for server in self.servers if server is not besides and self.is_primary(server)]

    def replicas(self) -> list[RedisServer]:
        """Return the other responding servers, once each of them has all data of its primary."""

        def linked() -> bool:
            return all(self.clients[server].info("replication").get("master_link_status") == "up" for server in found)

        found = [server for server in self.servers if not self.is_primary(server)]
        wait_until(linked, timeout_s=READY_S)
        return found

    def pair(self) -> tuple[RedisServer, RedisServer]:
        """Return a primary that has a replica, and this replica."""
        replica = self.replicas()[0]
        port = self.ask(replica, "ROLE")[2]
        return next(server for server in self.servers if server.port == port), replica

    def names(self) -> set[str]:
        """Return the names of all stored keys."""
        return {name for server in self.primaries() for name in self.ask(server, "KEYS", "*")}

    def empty(self) -> None:
        """Remove all data and all scripts from every server."""
        for server in self.primaries():
            self.ask(server, "FLUSHALL")
            self.ask(server, "SCRIPT", "FLUSH")


class Cluster(Group):
    """Three primaries, and a replica of the first."""

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        nodes = [servers.start_cluster_node("--cluster-node-timeout", str(CALM_MS)) for _ in range(4)]
        for node in nodes:
            self.add(node)
        for epoch, server in enumerate(self.servers, 1):
            self.ask(server, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for server, (first, last) in zip(self.servers, RANGES, strict=False):
            self.ask(server, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            self.ask(self.servers[0], "CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        self.wait_until_all("CLUSTER INFO", lambda said: "cluster_known_nodes:4" in said)
        self.ids = {server: str(self.ask(server, "CLUSTER", "MYID")) for server in self.servers}
        self.ask(self.servers[3], "CLUSTER", "REPLICATE", self.ids[self.servers[0]])
        self.wait_until_whole()

    @property
    def url(self) -> str:
        """Return a URL with two of its nodes; the client discovers the others."""
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])
        return f"redis+cluster://:{PASSWORD}@{places}"

    def wait_until_all(self, command: str, condition: Callable[[str], bool]) -> None:
        """Wait until every node's response meets the condition."""
        for server in self.servers:
            wait_until(lambda at=server: condition(self.ask(at, *command.split())), timeout_s=READY_S)  # type: ignore[misc]  # a default is no argument

    def wait_until_whole(self) -> None:
        """Wait until all nodes are present, all slots are served, and all agree that the replica is a replica."""
        self.wait_until_all("CLUSTER INFO", lambda said: "cluster_state:ok" in said)
        self.wait_until_all("CLUSTER NODES", lambda said: said.count(" connected") == 4 and "fail" not in said)
        self.wait_until_all("CLUSTER NODES", lambda said: said.count("master") == 3 and said.count("slave") == 1)
        assert len(self.replicas()) == 1

    def owner(self, name: str) -> RedisServer:
        """Return the primary that serves the slot of this key."""
        slot = key_slot(name.encode())
        for server in self.primaries():
            nodes = self.ask(server, "CLUSTER", "SLOTS")
            for first, last, (_, port, *_), *_ in nodes:
                if first <= slot <= last and port == server.port:
                    return server
        raise LookupError(name)

    def move_slot(self, name: str, pause: Callable[[], None]) -> None:
        """Move the slot of this key to the next primary, key by key, as redis-cli does. Pauses after each step."""
        slot = key_slot(name.encode())
        source = self.owner(name)
        primaries = self.primaries()
        target = primaries[(primaries.index(source) + 1) % len(primaries)]
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        pause()
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            command = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
            self.ask(source, *command)
            pause()
        for server in (target, source, *primaries):
            self.ask(server, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])
            pause()

    @contextmanager
    def hasty(self) -> Iterator[None]:
        """Replace a node that is silent for ``HASTY_MS``."""
        self._allow_silence(HASTY_MS)
        try:
            yield
        finally:
            self.wait_until_whole()
            self._allow_silence(CALM_MS)

    def _allow_silence(self, milliseconds: int) -> None:
        for server in self.servers:
            self.ask(server, "CONFIG", "SET", "cluster-node-timeout", milliseconds)


class Watched(Group):
    """A primary, a replica, and three Sentinels of which two must agree."""

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        for _ in range(2):
            self.add(servers.start_redis("--repl-ping-replica-period", "1"))
        primary, replica = self.servers
        self.ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        assert self.replicas() == [replica]
        self.sentinels = [servers.start_sentinel(SERVICE, SENTINEL_PASSWORD, primary) for _ in range(3)]
        for sentinel in self.sentinels:
            with redis.Redis.from_url(sentinel.url, decode_responses=True, protocol=2) as client:
                wait_until(lambda asked=client: self._knows_all(asked), timeout_s=READY_S)  # type: ignore[misc]  # a default is no argument

    @property
    def url(self) -> str:
        """Return the URL of its Sentinels."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{places}/{SERVICE}/0?sentinel_password={SENTINEL_PASSWORD}"

    def ask_sentinel(self, *command: str) -> Any:
        """Return the first Sentinel's response."""
        with redis.Redis.from_url(self.sentinels[0].url, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    def heal(self) -> None:
        """Make the other server replicate the known primary, running or not, without waiting for the Sentinels."""
        port = int(self.ask_sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        for server in self.servers:
            if server.process.poll() is not None:
                server.restart()
        for server in self.servers:
            if server.port == port:
                self.ask(server, "REPLICAOF", "NO", "ONE")
            else:
                self.ask(server, "REPLICAOF", "127.0.0.1", port)
        assert len(self.replicas()) == 1
        for sentinel in self.sentinels:
            with redis.Redis.from_url(sentinel.url, decode_responses=True, protocol=2) as client:
                wait_until(lambda asked=client: self._is_calm(asked, port), timeout_s=READY_S)  # type: ignore[misc]  # a default is no argument

    def _is_calm(self, client: redis.Redis, port: int) -> bool:
        primary: Any = cast(Any, client.sentinel_masters())[SERVICE]
        replicas: Any = client.sentinel_slaves(SERVICE)
        seen = [one["flags"] for one in replicas if one["port"] != port]
        return bool(primary["port"] == port and set(primary["flags"].split(",")) == {"master"} and seen == ["slave"])

    def _knows_all(self, client: redis.Redis) -> bool:
        state: Any = cast(Any, client.sentinel_masters())[SERVICE]  # The client's types declare a list.
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)
