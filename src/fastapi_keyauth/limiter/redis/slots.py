"""Routing to the nodes of a cluster: the map of slots, and script calls that follow redirections.

The map of slots comes from one node (``CLUSTER SLOTS``), and every redirection corrects it.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.limiter.redis.connection import Connection, ConnectionLost
from fastapi_keyauth.limiter.redis.errors import unavailable
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs
from fastapi_keyauth.settings.redis_urls import Address, RedisUrl

PAUSE_S = 0.02
"""Seconds before a call is repeated that the cluster could not answer yet."""
MAP_AGE_S = 1.0
"""Seconds in which redirections cause no second refresh of the map: each of them corrects its own slot."""
_CONCURRENT_NODES = 3
"""Number of nodes that are queried for the map concurrently."""
_MANY_REDIRECTIONS = 5
"""Maximum number of redirections of one call that are followed without a pause."""
_MAX_NAMES_TRIED = 1000
_NOT_YET = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
_SLOTS = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"


class SlotRouter:
    """Calls scripts on the node that has the slot. It retries until the caller cancels it.

    Args:
        url: The Redis URL, which names some of the nodes.
        timeout_s: Seconds after which callers cancel.
    """

    def __init__(self, url: RedisUrl, timeout_s: float) -> None:
        self._clients = ClientFactory(url, timeout_s)
        self._named = url.addresses
        self._timeout_s = timeout_s
        self._connections: dict[Address, Connection] = {}
        self._map: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._replicas: set[Address] = set()
        self._fetching: SingleFlight[None, None] = SingleFlight("keyauth-cluster-map")
        self._mapped_at = -MAP_AGE_S
        self._problem = ""
        self._is_closed = False

    async def call(
        self,
        script: LuaScript,
        prepared: ScriptArgs,
        again: ScriptArgs | None = None,
        without_record: Callable[[], tuple[ScriptArgs, ScriptArgs]] | None = None,
    ) -> Any:
        """Call a script on the node that has the slot of its first key, and return its answer.

        A call that loses its connection is sent once more, whether or not the first one was carried out.

        Args:
            script: The script.
            prepared: Keys, all in one slot, and arguments.
            again: The same after a lost connection, if they differ.
            without_record: Returns both without the name of a new record. While a slot moves, nodes refuse calls with a
                name that does not exist.

        Raises:
            LimiterUnavailable: If a node does not respond in time, or cannot run the script.
        """
        slot = _slot_of(prepared[0][0])
        packed = script.pack(prepared)
        address, is_asking = self._map[slot], False
        losses = redirections = 0
        while not self._is_closed:
            if address is None:
                await self.refresh()
                address = self._map[slot]
                if address is None:
                    raise LimiterUnavailable("no node of the cluster has the slot")
            try:
                answer = await self._connection_to(address).request(packed, is_asking=is_asking)
            except ConnectionLost as error:
                losses += 1
                if losses > 1:
                    raise LimiterUnavailable(*error.args) from None
                if again is not None:
                    prepared, packed = again, script.pack(again)
                address, is_asking = None, False
                await self.refresh()
                address = self._map[slot]
                continue
            if not isinstance(answer, hiredis.ReplyError):
                return answer
            word, _, rest = str(answer).partition(" ")
            if word == "NOSCRIPT":
                packed = script.pack(prepared, with_source=True)
            elif word in ("MOVED", "ASK"):
                redirections += 1
                if redirections > _MANY_REDIRECTIONS:
                    await asyncio.sleep(PAUSE_S)  # nodes redirect to each other until they agree
                address, is_asking = _read_redirection(rest, address), word == "ASK"
                if not is_asking:
                    self._map[slot] = address
                    self._refresh_soon()
            elif word == "TRYAGAIN" and without_record is not None and not losses:  # so it was not carried out
                (prepared, again), without_record = without_record(), None
                packed = script.pack(prepared)
            elif word in _NOT_YET:
                await asyncio.sleep(PAUSE_S)
                await self.refresh()
                address, is_asking = self._map[slot], False
            else:
                raise unavailable(answer)
        raise LimiterUnavailable("closed")

    def is_unsure(self, name: str) -> bool:
        """Return whether a call about this name would be sent over a connection that may be lost."""
        address = self._map[_slot_of(name)]
        connection = None if address is None else self._connections.get(address)
        return connection is None or connection.is_unsure

    async def refresh(self) -> None:
        """Refresh the map. Concurrent callers share one refresh.

        Raises:
            LimiterUnavailable: If no node returns a map.
        """
        await self._fetching.run(None, self._fetch_map)

    def names_on_all(self, make_name: Callable[[int], str]) -> list[str]:
        """Return names of keys, one on each primary. A primary with very few slots may be missing.

        Args:
            make_name: Returns a name for a number, different for each.

        Raises:
            LimiterUnavailable: If a slot is not assigned to any node.
        """
        missing = set(self._map)
        if None in missing:
            raise LimiterUnavailable("a slot of the cluster is on no node")
        names = []
        for number in range(_MAX_NAMES_TRIED):
            name = make_name(number)
            address = self._map[_slot_of(name)]
            if address in missing:
                missing.discard(address)
                names.append(name)
            if not missing:
                break
        return names

    def primaries(self) -> list[Address]:
        """Return the addresses of the known primaries."""
        return list({address for address in self._map if address is not None})

    def borrow(self, address: Address) -> AbstractAsyncContextManager[Redis]:
        """Return a context manager with a client of one node. For rare commands, not for requests.

        Args:
            address: Host and port of the node.
        """
        return self._clients.borrow(address)

    async def close(self) -> None:
        """Wait for running calls, then close all connections."""
        while busy := [connection for connection in self._connections.values() if connection.is_busy]:
            await asyncio.gather(*(connection.settle() for connection in busy))
        self._is_closed = True
        self._fetching.cancel()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _connection_to(self, address: Address) -> Connection:
        connection = self._connections.get(address)
        if connection is None:
            create_connection = partial(self._clients.create_connection, address)
            connection = self._connections[address] = Connection(create_connection, self._timeout_s)
        return connection

    def _refresh_soon(self) -> None:
        """Refresh the map in the background, unless that was done within ``MAP_AGE_S``."""
        if asyncio.get_running_loop().time() - self._mapped_at >= MAP_AGE_S:
            self._fetching.start(None, self._fetch_map)

    async def _fetch_map(self) -> None:
        """Apply the map of the first node that responds."""
        self._problem = "TimeoutError"
        known = list({address for address in self._map if address is not None} | self._replicas | set(self._named))
        random.shuffle(known)  # so that a node with an outdated map is rarely the first
        groups = [known[start : start + _CONCURRENT_NODES] for start in range(0, len(known), _CONCURRENT_NODES)]
        try:
            for group in groups:
                # The last group has as long as calls have.
                timeout_s = None if group is groups[-1] else self._timeout_s / len(groups)
                if await self._fetch_map_from(group, timeout_s):
                    return
        finally:
            self._mapped_at = asyncio.get_running_loop().time()
        raise LimiterUnavailable(f"no node of the cluster returns a map of the slots ({self._problem})")

    async def _fetch_map_from(self, addresses: list[Address], timeout_s: float | None) -> bool:
        pending = {self._connection_to(address).request(_SLOTS): address for address in addresses}
        is_applied = False
        try:
            async with asyncio.timeout(timeout_s):
                while pending and not is_applied:
                    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for future in done:
                        address = pending.pop(future)
                        # Retrieved in any case: asyncio logs errors that were not.
                        outcome = future.exception() or future.result()
                        if isinstance(outcome, Exception):
                            self._problem = str(outcome)
                        elif not is_applied:
                            is_applied = self._apply(future.result(), address)
        except TimeoutError:
            pass
        finally:
            for request in pending:
                request.cancel()
        return is_applied

    def _apply(self, rows: Any, source: Address) -> bool:
        """Apply the answer to ``CLUSTER SLOTS``. Return whether it is a map."""
        slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        replicas = set()
        try:
            for first, last, primary, *others in rows:
                slots[first : last + 1] = [_read_address(primary, source)] * (last - first + 1)
                replicas |= {_read_address(other, source) for other in others}
        except (TypeError, ValueError):
            return False
        if len(slots) != REDIS_CLUSTER_HASH_SLOTS or not any(slots):
            return False
        self._map, self._replicas = slots, replicas
        primaries = set(slots)
        for address, connection in list(self._connections.items()):
            if address not in primaries and not connection.is_busy:
                del self._connections[address]
                connection.close()
        return True


@lru_cache(maxsize=4096)
def _slot_of(name: str) -> int:
    """Return the slot of a name. Cached, since a call asks more than once."""
    return int(key_slot(name.encode()))


def _read_address(entry: Any, source: Address) -> Address:
    """Return host and port of a node. The source of the answer may not know its own host."""
    host, port, *_ = entry
    return (host if host not in (None, "", "?") else source[0]), int(port)


def _read_redirection(text: str, source: Address) -> Address:
    """Return the address in ``<slot> <host>:<port>``, the rest of ``MOVED`` and ``ASK``."""
    host, _, port = text.rpartition(" ")[2].rpartition(":")
    if not port.isdigit():
        raise LimiterUnavailable("a node of the cluster sent a malformed redirection")
    return host or source[0], int(port)
