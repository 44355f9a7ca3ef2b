"""The limiter on one Redis or Valkey server, version 6.2 or later, or on the primary that Sentinels name."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from typing_extensions import override

from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter.leases.addresses import address_check
from fastapi_keyauth.limiter.leases.terms import Plan
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Unsettled, Verdict
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.batcher import Batcher, Resolve
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.limiter.redis.connection import Connection
from fastapi_keyauth.limiter.redis.probe import PROBE
from fastapi_keyauth.limiter.redis.scripts import LuaScript, ScriptArgs, ScriptCaller
from fastapi_keyauth.limiter.redis.server_info import ServerInfo, check_server, read_server_info
from fastapi_keyauth.limiter.redis.take_args import CallRecord
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.settings.redis_urls import Address

SETTLED_S = 5.0
"""Seconds after which all workers use a primary that Sentinels promoted: workers check every second, and Sentinels
notify each other within two."""


class SingleNodeLimiter(RedisLimiterBase):
    """Counters on one server. Requests that wait share one script call."""

    @override
    def _open(self) -> None:
        super()._open()
        self.fails_over = self._place.kind == "sentinel"
        self._primary: Address | None = None
        self._clients = ClientFactory(self._place, self._timeout_s)
        # Units have a connection of their own, and generations are compared over it: after a loss, it may lead to
        # another server.
        self._units_client = self._clients.create(redis_connect_func=self._connected)
        self._control_client = self._clients.create()
        self._units = Connection(self._units_client.connection_pool.make_connection, self._timeout_s)
        self._control = Connection(self._control_client.connection_pool.make_connection, self._timeout_s)
        self._take = ScriptCaller(self._units, LuaScript("take_others", "take"), self._timeout_s)
        self._usage = ScriptCaller(self._control, LuaScript("usage", uses_time=False), self._timeout_s)
        self._generations = ScriptCaller(self._units, LuaScript("generations", uses_time=False), self._timeout_s)
        self._failing = ScriptCaller(self._control, LuaScript("fail"), self._timeout_s)
        self._changing = ScriptCaller(self._control, LuaScript("changed"), self._timeout_s)
        self._tickets = ScriptCaller(self._control, LuaScript("ticket", uses_time=False), self._timeout_s)
        self._checks: Batcher[LimitCheck, Decision] = Batcher(
            self._send_checks, self._on_error, self._answered, self.try_decide
        )
        self._failures: Batcher[str, int] = Batcher(self._send_failures)

    async def _connected(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        if self.fails_over:
            self._primary = (connection.host, connection.port)  # type: ignore[attr-defined]  # of a Sentinel's
            # A Sentinel may still name a server that was demoted, which answers whatever does not write. Clients of
            # Sentinels should check: https://redis.io/docs/latest/develop/reference/sentinel-clients
            await connection.send_command("ROLE")
            role = await connection.read_response()
            if role[0] not in ("master", b"master"):
                raise RedisConnectionError("the server that Sentinel names is not a primary")
        self.invalidate_generations()

    @override
    async def start(self) -> None:
        try:
            await super().start()
        except LimiterUnavailable as error:
            if self.fails_over and await self._clients.is_service_unknown():
                raise LimiterUnavailable("no Sentinel knows the service") from error
            raise

    @override
    async def close(self) -> None:
        await self._checks.close()
        await self._return_leases()
        await self._return_leases()  # those that a renewal in flight has brought
        await self._failures.close()
        self._units.close()
        self._control.close()
        await asyncio.gather(*map(self._clients.close_client, (self._units_client, self._control_client)))
        await self._clients.close()

    @override
    async def probe(self) -> None:
        """Check both connections: one by a change, the one that requests use by a check."""
        if self.fails_over:
            await self._follow_primary()
        await self._changing.run(lambda: ([f"{self._namespace}:probe"], ["", "-", 1]))
        await self._checks.submit(PROBE)

    async def _follow_primary(self) -> None:
        """Reconnect if Sentinels have replaced the server. It may still run, and act as the primary for seconds."""
        primary = await self._clients.find_primary(self._control_client)
        if primary not in (None, self._primary):
            self._units.reconnect()
            self._control.reconnect()

    @override
    def _on_error(self, question: LimitCheck, error: LimiterUnavailable) -> Decision:
        if question is PROBE:
            raise error
        return super()._on_error(question, error)

    @override
    def check(self, question: LimitCheck) -> Awaitable[Decision]:
        return self._checks.submit(question)

    @override
    def _record_failure(self, bucket: str) -> Awaitable[int]:
        return self._failures.submit(bucket)

    @override
    async def _bump(self, name: str) -> int:
        server: Address | None = None

        def build() -> ScriptArgs:
            nonlocal server
            server = self._control.address
            return self._prepare_change(name)

        recorded_ms: int = await self._changing.run(build)
        # A server that is replaced while it runs accepts changes that its successor never receives. A worker that
        # already uses the successor may have read the key's row before the change.
        if self.fails_over and not await self._clients.is_settled(server, SETTLED_S):
            raise Unsettled("the primary has just been replaced, or no Sentinel responds")
        return recorded_ms

    @override
    async def _exchange_ticket(self, prepared: ScriptArgs) -> Any:
        return await self._tickets.run(lambda: prepared)

    @override
    async def _find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        found: list[str] = await self._generations.run(lambda: self._prepare_generations(holders))
        return found

    @override
    async def _read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> Sequence[Sequence[Any]]:
        found: list[list[Any]] = await self._usage.run(lambda: self._prepare_usage(wanted, forget_before))
        return found

    @override
    async def blocks(self) -> dict[str, int]:
        async with self._clients.borrow() as client:
            return await self._blocks_on(client).find()

    @override
    async def _unblock(self, bucket: str) -> bool:
        async with self._clients.borrow() as client:
            return await self._blocks_on(client).lift(bucket)

    @override
    async def run_checks(self) -> list[CheckWarning]:
        async with self._clients.borrow() as client:
            return await check_server(client, self._timeout_s, None if self._clock else time.time)

    @override
    async def server_info(self) -> ServerInfo:
        async with self._clients.borrow() as client:
            return await read_server_info(client, self._timeout_s)

    def _send_checks(self, questions: list[LimitCheck], resolve: Resolve[Decision], since: float) -> None:
        plan, record = self._leases.plan(questions), CallRecord()

        def received(reply: Any) -> None:
            if isinstance(reply, LimiterUnavailable):
                self._leases.fail(plan)
                resolve(reply)
                return
            decisions = self._receive(questions, plan, reply)
            verdicts = reply[::5] if len(reply) > 1 else [decision.verdict for decision in decisions]
            if Verdict.BLOCKED in verdicts or Verdict.WAITING in verdicts:
                self._act_on(questions, decisions)
            resolve(decisions)

        self._take.call(lambda: self._prepare_repeatable(questions, plan, record), received, since, is_alone=True)

    def _prepare_repeatable(self, questions: Sequence[LimitCheck], plan: Plan, record: CallRecord) -> ScriptArgs:
        """Return keys and arguments of ``lua/take.lua``, with a record if the connection may be lost."""
        record.is_used = record.is_used or self._units.is_unsure
        return self._prepare(questions, plan, record)

    def _act_on(self, questions: list[LimitCheck], decisions: list[Decision]) -> None:
        """Cache blocks, and postpone questions that wait for leases."""
        for position, (question, decision) in enumerate(zip(questions, decisions, strict=True)):
            if decision.verdict is Verdict.BLOCKED and question.bucket is not None:
                self._cache_block(question.bucket, decision.wait_s)
            elif decision.verdict is Verdict.WAITING:
                self._checks.postpone(position, decision.wait_s / 1000)

    @override
    def _send_plan(self, plan: Plan) -> None:
        questions, record = [address_check(bucket) for bucket in plan.buckets], CallRecord()

        def received(reply: Any) -> None:
            if isinstance(reply, LimiterUnavailable):
                self._leases.fail(plan)
                return
            for question, decision in zip(questions, self._receive(questions, plan, reply), strict=True):
                if decision.verdict is Verdict.BLOCKED and question.bucket is not None:
                    self._cache_block(question.bucket, decision.wait_s)

        if plan.returns:
            self._take.call(lambda: self._prepare_repeatable(questions, plan, record), received)

    def _send_failures(self, buckets: list[str], resolve: Resolve[int], since: float) -> None:
        self._failing.call(lambda: self._prepare_failures(buckets), resolve, since)
