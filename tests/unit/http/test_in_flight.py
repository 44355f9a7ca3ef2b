"""Many requests in flight are ended in an order that lets all clients know in time, however long applications take."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth import CreatedKey, KeyAuth
from fastapi_keyauth.errors import KeyAuthError, RevokedApiKey
from fastapi_keyauth.http.in_flight import ENDED_IN_A_ROW, check_after_s
from fastapi_keyauth.http.open_request import OpenRequest
from tests.helpers.stage import MakeAuth
from tests.helpers.waiting import until

STACKS = ("sqlite-memory",)
MANY = 3 * ENDED_IN_A_ROW + 1
WITHIN_S = 0.1

Log = list[str]


def _stream(log: Log, goes_on: Callable[[Send], Awaitable[None]]) -> ASGIApp:
    """Return an application that sends the start of an event stream, and then goes on in some way."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        log.append("begun")
        try:
            await goes_on(send)
        finally:
            log.append("returned")

    return app


async def _wait(send: Send) -> None:
    await asyncio.Event().wait()


async def _send_again(send: Send) -> None:
    try:
        while True:
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
    except OSError:
        return


async def _call(app: ASGIApp, token: str, log: Log) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if b"event: error" in message.get("body", b""):
            log.append("told")

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"api-key", token.encode())],
        "client": ("127.0.0.1", 50_000),
        "state": {},
    }
    await app(scope, receive, send)


Opened = tuple[KeyAuth, CreatedKey, list[asyncio.Task[None]], Log]


@asynccontextmanager
async def _opened(make_auth: MakeAuth, goes_on: Callable[[Send], Awaitable[None]]) -> AsyncIterator[Opened]:
    """Open many requests with one key."""
    auth, log = make_auth(end_in_flight_within_s=WITHIN_S), Log()
    app = auth.protect(_stream(log, goes_on))
    async with auth:
        key = await auth.keys.create(owner_id="alice", name="k")
        tasks = [asyncio.create_task(_call(app, key.token, log)) for _ in range(MANY)]
        await until(lambda: log.count("begun") == MANY)
        log.clear()
        yield auth, key, tasks, log


async def test_all_clients_are_told_before_any_application_is_cancelled(make_auth: MakeAuth) -> None:
    async with _opened(make_auth, _wait) as (auth, key, tasks, log):
        await auth.keys.revoke(key.key.id)
        await asyncio.gather(*tasks)
        assert log == ["told"] * MANY + ["returned"] * MANY


async def test_applications_may_return_before_they_are_cancelled(make_auth: MakeAuth) -> None:
    async with _opened(make_auth, _send_again) as (auth, key, tasks, log):
        await auth.keys.revoke(key.key.id)
        await asyncio.gather(*tasks)
        assert (log.count("told"), log.count("returned")) == (MANY, MANY)
        assert "returned" in log[: log.index("told") + MANY]  # the others were not told yet


async def test_all_requests_that_were_being_ended_end_if_the_application_stops(make_auth: MakeAuth) -> None:
    async with _opened(make_auth, _wait) as (auth, key, tasks, log):
        in_flight = auth._parts.in_flight  # stopped in the middle
        assert in_flight is not None
        await auth.keys.revoke(key.key.id)
        await until(lambda: "told" in log)
        await in_flight.close()
        await asyncio.gather(*tasks)
        assert (log.count("told"), log.count("returned")) == (MANY, MANY)


@pytest.mark.parametrize("goes_on", [_wait, _send_again])
async def test_requests_end_if_the_application_stops_just_before_their_end_begins(
    make_auth: MakeAuth, goes_on: Callable[[Send], Awaitable[None]]
) -> None:
    async with _opened(make_auth, goes_on) as (auth, key, tasks, log):
        in_flight = auth._parts.in_flight  # stopped before the event loop runs anything else
        assert in_flight is not None

        async def find(running: list[OpenRequest], at: float) -> dict[OpenRequest, KeyAuthError]:
            return {request: RevokedApiKey(key.key.id) for request in running}

        await in_flight._end_lost(find, list(in_flight.open), 0.0)
        await in_flight.close()
        await asyncio.gather(*tasks)
        assert (log.count("told"), log.count("returned")) == (MANY, MANY)


async def test_requests_in_another_event_loop_are_not_among_the_open_requests(make_auth: MakeAuth) -> None:
    auth, seen = make_auth(end_in_flight_within_s=WITHIN_S), []
    in_flight = auth._parts.in_flight  # read in one thread, so that another one must not change it
    assert in_flight is not None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(len(in_flight.open))

    exempt = auth.protect(app, exempt=["/"])
    async with auth:
        await _call(exempt, "", [])
        await asyncio.to_thread(asyncio.run, _call(exempt, "", []))
    assert seen == [1, 0]


@pytest.mark.parametrize(
    ("within_s", "count", "expected_s"),
    [(1.0, 1, 0.8), (1.0, 100, 0.792), (1.0, 5000, 0.4), (1.0, 100_000, 0.4), (10.0, 5000, 7.6), (0.1, 1000, 0.04)],
)
def test_a_check_begins_earlier_the_more_requests_may_end(within_s: float, count: int, expected_s: float) -> None:
    assert check_after_s(within_s, count) == pytest.approx(expected_s, abs=0.0001)
