"""The nodes of a cluster: which of them answers for a slot, and calls that find their way there.

The map of slots is what a node last said (``CLUSTER SLOTS``), put right by every redirection that is met.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
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
"""Seconds before a question is put again that the cluster could not answer yet."""
MAP_AGE_S = 1.0
"""Seconds in which redirections ask for no second map: each of them puts right the slot that it is about."""
_ASKED_AT_ONCE = 3
_MANY_REDIRECTIONS = 5
_MAX_NAMES_TRIED = 1000
_NOT_YET = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
_SLOTS = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"


class SlotRouter:
    """Calls scripts on whichever node has the slot, for as long as the caller waits.

    Args:
        url: names some of the nodes.
        timeout_s: seconds that a caller waits.
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

    async def call(self, script: LuaScript, prepared: ScriptArgs) -> Any:
        """What the script answers, on the node that has the slot of its first key (the others must be in the same one).

        A call whose connection is lost is put once more. If it was carried out all the same its units count twice;
        never more is admitted by that.

        Raises:
            LimiterUnavailable: a node does not answer in time, or cannot run the script.
        """
        slot = key_slot(prepared[0][0].encode())
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
                address, is_asking = None, False
                await self.refresh()
                address = self._map[slot]
                continue
            if not isinstance(answer, hiredis.ReplyError):
                return answer
            word, _, said = str(answer).partition(" ")
            if word == "NOSCRIPT":
                packed = script.pack(prepared, with_source=True)
            elif word in ("MOVED", "ASK"):
                redirections += 1
                if redirections > _MANY_REDIRECTIONS:
                    await asyncio.sleep(PAUSE_S)  # they send it to and fro until they agree
                address, is_asking = _read_redirection(said, address), word == "ASK"
                if not is_asking:
                    self._map[slot] = address
                    self._refresh_soon()
            elif word in _NOT_YET:
                await asyncio.sleep(PAUSE_S)
                await self.refresh()
                address, is_asking = self._map[slot], False
            else:
                raise unavailable(answer)
        raise LimiterUnavailable("closed")

    async def refresh(self) -> None:
        """Have the map drawn anew; who asks meanwhile waits for the same one.

        Raises:
            LimiterUnavailable: no node gives one.
        """
        await self._fetching.run(None, self._fetch_map)

    def names_on_all(self, make_name: Callable[[int], str]) -> list[str]:
        """Names of keys of which one lies on each primary, from those that ``make_name`` gives for a number. A primary
        with next to no slots may be left out.

        Raises:
            LimiterUnavailable: a slot is nobody's.
        """
        wanted = set(self._map)
        if None in wanted:
            raise LimiterUnavailable("a slot of the cluster is on no node")
        names = []
        for number in range(_MAX_NAMES_TRIED):
            name = make_name(number)
            address = self._map[key_slot(name.encode())]
            if address in wanted:
                wanted.discard(address)
                names.append(name)
            if not wanted:
                break
        return names

    def primaries(self) -> list[Address]:
        """Where the primaries are, as far as is known."""
        return list({address for address in self._map if address is not None})

    def borrow(self, address: Address) -> AbstractAsyncContextManager[Redis]:
        """A client of one node, for the block alone: for what is asked seldom, and not for a request."""
        return self._clients.borrow(address)

    async def close(self) -> None:
        """Wait for what was asked so far, then let go of all connections."""
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
        """Take over the map of the first node that answers."""
        self._problem = "TimeoutError"
        known = list({address for address in self._map if address is not None} | self._replicas | set(self._named))
        random.shuffle(known)  # one that is out of date is asked first by chance alone
        groups = [known[start : start + _ASKED_AT_ONCE] for start in range(0, len(known), _ASKED_AT_ONCE)]
        try:
            for group in groups:
                # The last ones have as long as calls have.
                patience_s = None if group is groups[-1] else self._timeout_s / len(groups)
                if await self._fetch_map_from(group, patience_s):
                    return
        finally:
            self._mapped_at = asyncio.get_running_loop().time()
        raise LimiterUnavailable(f"no node of the cluster tells where the slots are ({self._problem})")

    async def _fetch_map_from(self, addresses: list[Address], patience_s: float | None) -> bool:
        asked = {self._connection_to(address).request(_SLOTS): address for address in addresses}
        is_drawn = False
        try:
            async with asyncio.timeout(patience_s):
                while asked and not is_drawn:
                    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    for future in done:
                        address = asked.pop(future)
                        # Looked at in any case, else asyncio complains of an error that nobody looked at.
                        problem = future.exception() or future.result()
                        if isinstance(problem, Exception):
                            self._problem = str(problem)
                        elif not is_drawn:
                            is_drawn = self._apply(future.result(), address)
        except TimeoutError:
            pass
        finally:
            for late in asked:
                late.cancel()
        return is_drawn

    def _apply(self, rows: Any, asked: Address) -> bool:
        """Take over what ``CLUSTER SLOTS`` gave; whether it is a map."""
        drawn: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        replicas = set()
        try:
            for first, last, primary, *others in rows:
                drawn[first : last + 1] = [_read_address(primary, asked)] * (last - first + 1)
                replicas |= {_read_address(other, asked) for other in others}
        except (TypeError, ValueError):
            return False
        if len(drawn) != REDIS_CLUSTER_HASH_SLOTS or not any(drawn):
            return False
        self._map, self._replicas = drawn, replicas
        primaries = set(drawn)
        for address, connection in list(self._connections.items()):
            if address not in primaries and not connection.is_busy:
                del self._connections[address]
                connection.close()
        return True


def _read_address(entry: Any, asked: Address) -> Address:
    """Host and port of a node; where it does not know its own host, it is the one that was asked."""
    host, port, *_ = entry
    return (host if host not in (None, "", "?") else asked[0]), int(port)


def _read_redirection(said: str, asked: Address) -> Address:
    """Where ``MOVED <slot> <host>:<port>`` sends to."""
    host, _, port = said.rpartition(" ")[2].rpartition(":")
    if not port.isdigit():
        raise LimiterUnavailable("a node of the cluster sends to nowhere")
    return host or asked[0], int(port)
