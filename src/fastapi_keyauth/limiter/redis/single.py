"""The limiter of many workers on many hosts: one Redis or Valkey, from 6.2 on, or the primary that Sentinels know."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase, Unsettled
from fastapi_keyauth.limiter.redis.batcher import Batcher, Resolve
from fastapi_keyauth.limiter.redis.blocks import RedisBlocks
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.limiter.redis.connection import Connection
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs, ScriptCaller
from fastapi_keyauth.limiter.redis.server_info import ServerInfo, check_server, read_server_info
from fastapi_keyauth.settings.checks import CheckWarning
from fastapi_keyauth.settings.redis_urls import Address

SETTLED_S = 5.0
"""Seconds after which all workers have moved to a primary that Sentinels made: they look every second, and what one
Sentinel did the others know within two."""
_PROBE = LimitCheck("probe", "probes")
"""As a request's, about a key and an address in different slots: a node of a cluster would answer one of them alone."""


class SingleNodeLimiter(RedisLimiterBase):
    """Counters in one server, in one script call for all that wait."""

    def _open(self) -> None:
        super()._open()
        self.fails_over = self._place.kind == "sentinel"
        self._primary: Address | None = None
        self._clients = ClientFactory(self._place, self._timeout_s)
        # Units have a connection of their own, and generations are proven over it: after it was lost, the server may be
        # another one.
        self._units_client = self._clients.create(redis_connect_func=self._connected)
        self._control_client = self._clients.create()
        self._units = Connection(self._units_client.connection_pool.make_connection, self._timeout_s)
        self._control = Connection(self._control_client.connection_pool.make_connection, self._timeout_s)
        self._take = ScriptCaller(self._units, LuaScript("take"), self._timeout_s)
        self._failing = ScriptCaller(self._control, LuaScript("fail"), self._timeout_s)
        self._changing = ScriptCaller(self._control, LuaScript("changed", uses_time=False), self._timeout_s)
        self._asks: Batcher[LimitCheck, Decision] = Batcher(self._send_asks, self._on_error, self._answered)
        self._failures: Batcher[str, int] = Batcher(self._send_failures)

    async def _connected(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        if self.fails_over:
            self._primary = (connection.host, connection.port)  # type: ignore[attr-defined]  # of a Sentinel's
            # A Sentinel may not know yet that it names a server that was demoted, and such a one still answers what
            # needs no writing. ClientFactory of Sentinels ought to ask: https://redis.io/docs/latest/develop/reference/sentinel-clients
            await connection.send_command("ROLE")
            role = await connection.read_response()
            if role[0] not in ("master", b"master"):
                raise RedisConnectionError("the server that Sentinel names is no primary")
        self.invalidate_generations()

    async def start(self) -> None:
        """See ``RedisLimiterBase``."""
        try:
            await super().start()
        except LimiterUnavailable as error:
            if self.fails_over and await self._clients.is_service_unknown():
                raise LimiterUnavailable("no Sentinel knows the service") from error
            raise

    async def close(self) -> None:
        """See ``Limiter``."""
        await self._asks.close()
        await self._failures.close()
        self._units.close()
        self._control.close()
        await asyncio.gather(*map(self._clients.close_client, (self._units_client, self._control_client)))
        await self._clients.close()

    async def probe(self) -> None:
        """See that both work: a change over any connection, and a question over the one that requests wait for."""
        if self.fails_over:
            await self._follow_primary()
        await self._changing.run(lambda: ([f"{self._namespace}:probe"], ["-", 1]))
        await self._asks.submit(_PROBE)

    async def _follow_primary(self) -> None:
        """Leave a server that Sentinels have replaced. It may live on, and takes itself for the primary for seconds."""
        primary = await self._clients.find_primary(self._control_client)
        if primary not in (None, self._primary):
            self._units.reconnect()
            self._control.reconnect()

    def _on_error(self, ask: LimitCheck, error: LimiterUnavailable) -> Decision:
        if ask is _PROBE:
            raise error
        return super()._on_error(ask, error)

    def check(self, ask: LimitCheck) -> Awaitable[Decision]:
        """See ``Limiter``."""
        return self._asks.submit(ask)

    def _record_failure(self, bucket: str) -> Awaitable[int]:
        return self._failures.submit(bucket)

    async def _bump(self, name: str) -> None:
        server: Address | None = None

        def build() -> ScriptArgs:
            nonlocal server
            server = self._control.address
            return self._prepare_change(name)

        await self._changing.run(build)
        # A server that is replaced while it is alive accepts changes of which its successor never learns. A worker that
        # has moved there already may have read the key's row before.
        if self.fails_over and not await self._clients.is_settled(server, SETTLED_S):
            raise Unsettled("the primary has just been replaced, or no Sentinel can be asked")

    async def blocks(self) -> dict[str, int]:
        """See ``Limiter``."""
        async with self._clients.borrow() as client:
            return await RedisBlocks(client, self._namespace, self._timeout_s, self._clock).find()

    async def _unblock(self, bucket: str) -> bool:
        async with self._clients.borrow() as client:
            return await RedisBlocks(client, self._namespace, self._timeout_s, self._clock).lift(bucket)

    async def run_checks(self) -> list[CheckWarning]:
        """See ``Limiter``."""
        async with self._clients.borrow() as client:
            return await check_server(client, self._timeout_s, None if self._clock else time.time)

    async def facts(self) -> ServerInfo:
        """See ``RedisLimiterBase``."""
        async with self._clients.borrow() as client:
            return await read_server_info(client, self._timeout_s)

    def _send_asks(self, asks: list[LimitCheck], resolve: Resolve[Decision], since: float) -> None:
        def received(reply: Any) -> None:
            if isinstance(reply, LimiterUnavailable):
                resolve(reply)
                return
            decisions = self._decide(reply)
            if Verdict.BLOCKED in reply[::5]:
                for ask, decision in zip(asks, decisions, strict=True):
                    if decision.verdict is Verdict.BLOCKED and ask.bucket is not None:
                        self._remember_block(ask.bucket, decision.wait_s)
            resolve(decisions)

        self._take.call(lambda: self._prepare(asks), received, since, is_alone=True)

    def _send_failures(self, buckets: list[str], resolve: Resolve[int], since: float) -> None:
        self._failing.call(lambda: self._prepare_failures(buckets), resolve, since)
