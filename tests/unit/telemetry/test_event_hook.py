"""Events of an ``on_event`` hook, which no request ever waits for."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import AuthEvent, ChangePending, KeyAuth, KeyAuthSettings, KeyNotFound, KeyPrincipal
from fastapi_keyauth.telemetry import event_hook as hook_module
from fastapi_keyauth.telemetry.counters import Counters
from fastapi_keyauth.telemetry.event_hook import MAX_WAITING, EventDispatcher
from tests.conftest import Stack
from tests.helpers.servers import Server
from tests.helpers.waiting import until

WRONG = "ka_live_Examp1eKey00_000000000000000000000000000000000000000000025Mbn7"
HERE = "203.0.113.7"
on_two_stacks = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)
on_one_stack = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


class Sink:
    """A hook that stores events."""

    def __init__(self) -> None:
        self.events: list[AuthEvent] = []

    async def __call__(self, event: AuthEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


def build(settings: dict[str, Any], on_event: Any, **others: Any) -> KeyAuth:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "block_after_failures": 3}
    return KeyAuth(KeyAuthSettings(_env_file=None, **{**settings, **cheap, **others}), on_event=on_event)


@asynccontextmanager
async def serving(auth: KeyAuth, make_client: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")

    @app.get("/models")
    async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.name

    async with auth:
        yield make_client(app, HERE)


@on_two_stacks
async def test_events_of_changes_name_the_actor_and_the_address(stack: Stack, make_client: Any) -> None:
    sink = Sink()
    auth = build(stack.settings, sink)
    async with serving(auth, make_client) as client:
        session = {"authorization": "Bearer " + await auth.sessions.create("ada")}
        made = (await client.post("/api-keys", json={"name": "n"}, headers=session)).json()
        path = f"/api-keys/{made['id']}"
        assert (await client.patch(path, json={"name": "n"}, headers=session)).status_code == 200  # changes nothing
        await client.patch(path, json={"name": "m", "enabled": True}, headers=session)
        await auth.keys.rotate(made["id"], timedelta(0))
        assert (await client.delete(path, headers=session)).status_code == 204
        assert (await client.delete(path, headers=session)).status_code == 204  # a second time changes nothing
        with pytest.raises(KeyNotFound):
            await auth.keys.revoke("unknown-key1")
    assert sink.kinds == ["created", "updated", "rotated", "revoked"]
    by_ada, by_code = {"actor": "user:ada", "address": HERE}, {"actor": "code", "address": None}
    for event, who in zip(sink.events, (by_ada, by_ada, by_code, by_ada), strict=True):
        assert {"actor": event.actor, "address": event.address} == who
        assert (event.key_id, event.owner_id) == (made["id"], "ada")
        assert abs(datetime.now(UTC) - event.at) < timedelta(minutes=1)
    assert [event.changed for event in sink.events] == [(), ("name",), ("hint", "overlap_s"), ()]


@on_two_stacks
async def test_a_change_is_an_event_only_after_its_commit(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    auth = build(stack.settings, None)

    async def look(event: AuthEvent) -> None:
        assert event.key_id is not None
        # Over a connection of its own: it sees what is committed and nothing else.
        seen.append((event.kind, (await auth.keys.get(event.key_id)).name))

    auth = build(stack.settings, look)
    async with auth:
        made = await auth.keys.create("ada", "before")
        await auth.keys.update(made.key.id, name="after")

        async def fail(*_: Any) -> None:
            raise RuntimeError("in the middle of the transaction")

        monkeypatch.setattr("fastapi_keyauth.store.changes.add_event", fail)
        with pytest.raises(RuntimeError):
            await auth.keys.update(made.key.id, name="never")
        monkeypatch.undo()
    assert [kind for kind, _ in seen] == ["created", "updated"]
    assert seen[-1] == ("updated", "after")


@on_two_stacks
async def test_failed_attempts_and_the_beginning_of_a_block_are_events_and_a_flood_is_not(
    stack: Stack, make_client: Any
) -> None:
    sink = Sink()
    auth = build(stack.settings, sink)
    async with serving(auth, make_client) as client:
        for token in ("nonsense", WRONG, WRONG, WRONG, "nonsense", WRONG):
            await client.get("/models", headers={"api-key": token})
        await client.get("/models")
    told = [(event.kind, event.reason, event.key_id, event.address) for event in sink.events]
    assert told == [
        ("failed", "malformed_api_key", None, HERE),
        ("failed", "invalid_api_key", "Examp1eKey00", HERE),
        ("failed", "invalid_api_key", "Examp1eKey00", HERE),
        ("blocked", "invalid_api_key", "Examp1eKey00", HERE),
    ]


@pytest.mark.parametrize("stack", ["sqlite-redis6"], indirect=True)
async def test_a_block_is_one_event_over_all_workers(stack: Stack, make_client: Any) -> None:
    here, there = Sink(), Sink()
    async with (
        serving(build(stack.settings, here), make_client) as one,
        serving(build(stack.settings, there), make_client) as other,
    ):
        await asyncio.gather(*(client.get("/models", headers={"api-key": "x"}) for client in (one, other) * 8))
    assert (here.kinds + there.kinds).count("blocked") == 1
    assert (here.kinds + there.kinds).count("failed") == 3


@on_one_stack
async def test_a_key_over_its_limit_is_one_event_an_hour(stack: Stack, make_client: Any) -> None:
    sink, now = Sink(), [500_000 * 3600.0]
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
    settings = KeyAuthSettings(_env_file=None, **stack.settings, **cheap)
    auth = KeyAuth(settings, clock=lambda: now[0], on_event=sink)
    async with serving(auth, make_client) as client:
        made = await auth.keys.create("ada", "n", hourly_limit=1)
        for _ in range(2):
            statuses = [(await client.get("/models", headers={"api-key": made.token})).status_code for _ in range(4)]
            assert statuses == [200, 429, 429, 429]
            now[0] += 3600
    limited = [event for event in sink.events if event.kind == "limited"]
    assert [(event.key_id, event.owner_id, event.reason) for event in limited] == [
        (made.key.id, "ada", "rate_limit_exceeded")
    ] * 2
    assert limited[1].at - limited[0].at == timedelta(hours=1)


@on_one_stack
async def test_an_outage_of_redis_and_its_end_are_events(stack: Stack, start_valkey: Callable[..., Server]) -> None:
    sink, redis = Sink(), start_valkey()
    async with build({**stack.settings, "redis_url": redis.url}, sink, redis_timeout_s=5) as auth:
        made = await auth.keys.create("ada", "n")
        redis.kill()
        with pytest.raises(ChangePending):
            await auth.keys.revoke(made.key.id)
        redis.restart()
        await until(lambda: "recovered" in sink.kinds)
    assert sink.kinds == ["created", "revoked", "outage", "recovered"]  # the revocation is stored, so it is told
    outage, recovered = sink.events[2:]
    assert (outage.part, recovered.part) == ("redis", "redis")
    assert outage.reason is not None
    assert "rror" in outage.reason


@on_one_stack
async def test_a_hook_that_raises_is_logged_rarely_and_stays_active(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    async def fail(event: AuthEvent) -> None:
        told.append(event.kind)
        if len(told) == 2:
            raise asyncio.CancelledError  # of something that the hook waited for
        raise RuntimeError("the sink is down")

    async with build(stack.settings, fail) as auth:
        for _ in range(4):
            await auth.keys.create("ada", "n")
    assert told == ["created"] * 4
    lines = [record for record in caplog.records if "on_event" in record.getMessage()]
    assert [line.levelname for line in lines] == ["ERROR"]
    assert "the sink is down" in caplog.text


@on_one_stack
async def test_a_plain_function_is_called_in_a_thread_and_may_block(stack: Stack) -> None:
    calls: list[tuple[str, str]] = []
    may_go_on = threading.Event()

    def write(event: AuthEvent) -> None:
        may_go_on.wait(10)
        calls.append((threading.current_thread().name, event.kind))

    async with build(stack.settings, write) as auth:
        made = await auth.keys.create("ada", "n")
        await auth.keys.revoke(made.key.id)
        assert calls == []
        may_go_on.set()
    assert [kind for _, kind in calls] == ["created", "revoked"]
    assert {name.rpartition("_")[0] for name, _ in calls} == {"keyauth-on-event"}


async def test_an_awaitable_that_a_function_returns_is_awaited() -> None:
    sink = Sink()

    def promise(event: AuthEvent) -> Awaitable[None]:
        return sink(event)

    handed = EventDispatcher(promise, Counters())
    handed.start()
    handed.emit(an_event())
    await handed.close()
    assert sink.kinds == ["failed"]


async def test_events_that_a_hook_is_too_slow_for_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_module, "CLOSE_WAIT_S", 0.05)
    counts, taken = Counters(), []

    async def hang(event: AuthEvent) -> None:
        taken.append(event)
        await asyncio.Event().wait()

    handed = EventDispatcher(hang, counts)
    handed.start()
    handed.emit(an_event())
    await until(lambda: len(taken) == 1)
    for _ in range(MAX_WAITING + 5):
        handed.emit(an_event())
    assert counts.events_dropped == 5
    await handed.close()
    assert counts.events_dropped == MAX_WAITING + 5
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == ["on_event is too slow: 1 events dropped since the start"]


def an_event() -> AuthEvent:
    return AuthEvent("failed", datetime.now(UTC))


@on_two_stacks
async def test_an_admitted_request_is_not_an_event(stack: Stack, make_client: Any) -> None:
    sink = Sink()
    auth = build(stack.settings, sink)
    async with serving(auth, make_client) as client:
        made = await auth.keys.create("ada", "n")
        for _ in range(3):
            assert (await client.get("/models", headers={"api-key": made.token})).status_code == 200
    assert sink.kinds == ["created"]


@on_one_stack
async def test_log_lines_have_fields_and_no_secret(
    stack: Stack, make_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastapi_keyauth")
    sink = Sink()
    auth = build(stack.settings, sink)
    async with serving(auth, make_client) as client:
        made = await auth.keys.create("ada", "n", hourly_limit=1)
        for _ in range(2):
            await client.get(f"/models?{made.token}", headers={"api-key": made.token})
        for _ in range(3):
            await client.get(f"/{made.token}", headers={"api-key": made.token[:-1] + "!"})
            await client.get("/models", headers={"api-key": made.token[:-1] + "!"})
        await auth.keys.rotate(made.key.id)
    fields = {record.__dict__["keyauth_event"]: record.__dict__ for record in caplog.records}
    assert {"created", "rotated", "refused", "blocked"} <= set(fields)
    assert fields["created"]["key_id"] == made.key.id
    assert fields["created"]["actor"] == "code"
    assert {name: fields["blocked"][name] for name in ("address", "reason")} == {
        "address": HERE,
        "reason": "malformed_api_key",
    }
    secret = made.token.split("_")[3][:43]
    everything = [repr(record.__dict__) for record in caplog.records] + [repr(event) for event in sink.events]
    assert [text for text in everything if secret in text] == []
