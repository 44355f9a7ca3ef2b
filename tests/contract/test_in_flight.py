"""Requests that are running end soon after their key, its owner or their session lost the right, and no others do."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

from fastapi_keyauth import CreatedKey, KeyAuth, SessionPrincipal
from fastapi_keyauth.auth import sessions
from tests.helpers.long_running import ENDS_WITHIN_S, Clients, Record, build_long_app, ends
from tests.helpers.served import served
from tests.helpers.stage import Clock, MakeAuth
from tests.helpers.waiting import until

WITHIN_S = 0.3
SLACK_S = 2.0
"""What a busy machine may add to the promised time."""
OWNER = "alice"
DOWNLOAD_BYTES = 200_000_000
PART_BYTES = 65_536


class Running(NamedTuple):
    """A served application."""

    auth: KeyAuth
    app: FastAPI
    record: Record
    clients: Clients
    clock: Clock

    async def key(self, **fields: Any) -> CreatedKey:
        return await self.auth.keys.create(**{"owner_id": OWNER, "name": "k", **fields})


Open = Callable[..., Any]


@pytest.fixture
def run(make_auth: MakeAuth, clock: Clock, caplog: pytest.LogCaptureFixture) -> Open:
    """Serves an application on a real uvicorn; afterwards no task is left, and nobody logged an error."""

    @asynccontextmanager
    async def opened(
        *,
        requirement: Callable[[KeyAuth], Any] | None = None,
        prepare: Callable[[FastAPI, KeyAuth], object] = lambda app, auth: None,
        options: dict[str, Any] | None = None,
        big_file: Path | None = None,
        is_clean: bool = True,
        **settings: Any,
    ) -> AsyncIterator[Running]:
        auth = make_auth(clock=clock, **{"end_in_flight_within_s": WITHIN_S, **settings})
        record = Record()
        app = build_long_app(auth, record, None if requirement is None else requirement(auth), big_file)
        prepare(app, auth)
        caplog.set_level(logging.INFO)
        async with auth, served(app, **{"http": "httptools", **(options or {})}) as port:
            before = asyncio.all_tasks()
            async with Clients(f"http://127.0.0.1:{port}", record) as clients:
                yield Running(auth, app, record, clients, clock)
                record.go_on.set()
                record.thread_may_end.set()
            await until(lambda: not _of_the_app(asyncio.all_tasks() - before))
        if is_clean:
            assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []

    return opened


def _of_the_app(tasks: set[asyncio.Task[Any]]) -> list[str]:
    return [repr(task) for task in tasks if "keyauth" not in task.get_name() and task is not asyncio.current_task()]


async def _revoke(running: Running, key: CreatedKey) -> None:
    await running.auth.keys.revoke(key.key.id)


async def _disable(running: Running, key: CreatedKey) -> None:
    await running.auth.keys.update(key.key.id, enabled=False)


async def _suspend(running: Running, key: CreatedKey) -> None:
    await running.auth.owners.suspend(OWNER)


async def _rotate(running: Running, key: CreatedKey) -> None:
    await running.auth.keys.rotate(key.key.id, overlap=timedelta(0))


async def _expire(running: Running, key: CreatedKey) -> None:
    running.clock.advance(60)


CHANGES = {
    "revoked_api_key": _revoke,
    "disabled_api_key": _disable,
    "owner_suspended": _suspend,
    "expired_api_key": _rotate,
}


@pytest.mark.parametrize("code", CHANGES)
async def test_all_requests_of_a_key_end_in_time_and_those_of_other_keys_go_on(run: Open, code: str) -> None:
    async with run() as running:
        key, other = await running.key(), await running.key(owner_id="bob")
        paths = ("/slow", "/stream", "/events", "/socket")
        lost = [await running.clients.open(path, {"api-key": key.token}) for path in paths]
        kept = [await running.clients.open(path, {"api-key": other.token}) for path in paths]
        await CHANGES[code](running, key)
        changed_at = time.monotonic()
        slow, stream, events, socket = [await ends(task) for task in lost]
        assert (slow.status, slow.code) == (401, code)
        assert (stream.status, stream.code, stream.is_cut, stream.text) == (200, None, True, "part")
        assert (events.status, events.code, events.is_cut) == (200, code, True)
        assert (socket.status, socket.code, socket.is_cut) == (101, code, False)
        assert max(each.at for each in (slow, stream, events, socket)) - changed_at < WITHIN_S + SLACK_S
        assert sorted(running.record.cancelled) == ["events", "slow", "socket", "stream"]
        assert not any(task.done() for task in kept)
        await until(lambda: running.record.released == ["held"] * 4)


async def test_request_whose_key_was_read_before_a_revocation_ends_too(
    run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says that the key is active, and the generation that its charge returns is that of the revocation."""
    async with run() as running:
        key = await running.key()
        store = running.auth._parts.store
        find = store.find_for_token

        async def find_and_revoke(*token: str) -> Any:
            found = await find(*token)
            monkeypatch.setattr(store, "find_for_token", find)
            await _revoke(running, key)
            return found

        monkeypatch.setattr(store, "find_for_token", find_and_revoke)
        task = await running.clients.open("/events", {"api-key": key.token})
        assert (await ends(task)).code == "revoked_api_key"


async def test_requests_end_when_their_key_expires(run: Open) -> None:
    async with run() as running:
        key = await running.key(expires_at=running.clock.moment(60))
        task = await running.clients.open("/events", {"api-key": key.token})
        running.clock.advance(59)
        await _checks(running)
        assert not task.done()
        running.clock.advance(1)
        assert (await ends(task)).code == "expired_api_key"


async def test_requests_with_the_old_secret_end_when_its_overlap_ends_and_not_before(run: Open) -> None:
    async with run() as running:
        key = await running.key()
        old = await running.clients.open("/events", {"api-key": key.token})
        rotated = await running.auth.keys.rotate(key.key.id, overlap=timedelta(seconds=60))
        new = await running.clients.open("/events", {"api-key": rotated.token})
        await _checks(running)
        assert not old.done()
        running.clock.advance(60)
        assert (await ends(old)).code == "expired_api_key"
        await _checks(running)
        assert not new.done()


async def test_limits_and_blocks_end_nothing(run: Open) -> None:
    async with run(block_after_failures=1) as running:
        key = await running.key(hourly_limit=1)
        task = await running.clients.open("/events", {"api-key": key.token})
        limited = await running.clients.open("/short", {"api-key": key.token}, runs=False)
        assert (await ends(limited)).code == "rate_limit_exceeded"
        wrong = await running.clients.open("/short", {"api-key": "wrong"}, runs=False)
        assert (await ends(wrong)).status == 401
        blocked = await running.clients.open("/short", {"api-key": key.token}, runs=False)
        assert (await ends(blocked)).code == "address_blocked"
        await _checks(running)
        assert not task.done()


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        ("/events", {"allowed_ips": ["192.0.2.0/24"]}, "address_not_allowed"),
        ("/events", {"allowed_origins": ["https://other.example"]}, "origin_not_allowed"),
        ("/scoped", {"scopes": ["items:write"]}, "insufficient_scope"),
    ],
)
async def test_requests_end_if_a_narrower_key_would_refuse_them_now(
    run: Open, path: str, change: dict[str, Any], code: str
) -> None:
    async with run() as running:
        key = await running.key()
        headers = {"api-key": key.token, "origin": "https://page.example"}
        task = await running.clients.open(path, headers)
        unscoped = await running.clients.open("/stream", {"api-key": key.token})
        await running.auth.keys.update(key.key.id, **change)
        assert (await ends(task)).code == code
        await _checks(running)
        assert unscoped.done() == ("allowed_ips" in change)


async def test_requests_end_with_their_session(run: Open) -> None:
    async with run(requirement=lambda auth: auth.require_session) as running:
        token = await running.auth.sessions.create("alice")
        other = await running.auth.sessions.create("bob")
        tasks = [
            await running.clients.open(path, {"authorization": f"Bearer {token}"}) for path in ("/events", "/slow")
        ]
        kept = await running.clients.open("/events", {"authorization": f"Bearer {other}"})
        await running.auth.sessions.revoke(token)
        events, slow = [await ends(task) for task in tasks]
        assert (events.code, slow.status, slow.code) == ("invalid_session", 401, "invalid_session")
        assert slow.headers.get_list("www-authenticate") == ['Bearer realm="api", error="invalid_token"']
        assert not kept.done()


async def test_sessions_of_a_resolver_are_resolved_again(run: Open, make_auth: MakeAuth) -> None:
    valid = {"token-a": "alice", "token-b": "bob"}
    is_broken = False

    async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        if is_broken:
            raise OSError("its own server is unavailable")
        return SessionPrincipal(valid[token]) if token in valid else None

    async with run(requirement=lambda auth: auth.require_session, session_resolver=resolve) as running:
        task = await running.clients.open("/events", {"authorization": "Bearer token-a"})
        kept = await running.clients.open("/events", {"authorization": "Bearer token-b"})
        is_broken = True
        await _checks(running)
        assert not task.done()
        is_broken = False
        del valid["token-a"]
        assert (await ends(task)).code == "invalid_session"
        assert not kept.done()


async def test_a_resolver_that_hangs_keeps_no_other_request_from_ending(
    run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_RESOLVED", 1)
    monkeypatch.setattr(sessions, "RESOLVED_WITHIN_S", 2.0)
    valid, hangs = {"token-a", "token-b"}, False

    async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        if hangs and token == "token-a":
            await asyncio.Event().wait()
        return SessionPrincipal(token) if token in valid else None

    async with run(requirement=lambda auth: auth.require_key_or_session, session_resolver=resolve) as running:
        key = await running.key()
        kept, other = [
            await running.clients.open("/events", {"authorization": f"Bearer {token}"}) for token in sorted(valid)
        ]
        task = await running.clients.open("/events", {"api-key": key.token})
        hangs = True
        await _revoke(running, key)
        assert (await ends(task)).code == "revoked_api_key"
        monkeypatch.setattr(sessions, "RESOLVED_WITHIN_S", 0.01)
        valid.remove("token-b")
        assert (await ends(other)).code == "invalid_session"
        assert not kept.done()


@pytest.mark.parametrize("taken", ["key", "session"])
async def test_a_request_with_a_key_and_a_session_ends_with_either(run: Open, taken: str) -> None:
    async with run(requirement=lambda auth: auth.require_key_and_session) as running:
        key, session = await running.key(), await running.auth.sessions.create("alice")
        task = await running.clients.open("/events", {"api-key": key.token, "authorization": f"Bearer {session}"})
        if taken == "key":
            await running.auth.keys.revoke(key.key.id)
        else:
            await running.auth.sessions.revoke(session)
        assert (await ends(task)).code == {"key": "revoked_api_key", "session": "invalid_session"}[taken]


async def test_a_session_beside_the_key_that_decides_ends_nothing(run: Open) -> None:
    async with run(requirement=lambda auth: auth.require_key_or_session) as running:
        key, session = await running.key(), await running.auth.sessions.create("alice")
        headers = {"api-key": key.token, "authorization": f"Bearer {session}"}
        task = await running.clients.open("/events", headers)
        await running.auth.sessions.revoke(session)
        await _checks(running)
        assert not task.done()
        await running.auth.keys.revoke(key.key.id)
        assert (await ends(task)).code == "revoked_api_key"


async def test_an_optional_key_that_was_sent_ends_its_requests(run: Open) -> None:
    async with run(requirement=lambda auth: auth.optional_key) as running:
        key = await running.key()
        task = await running.clients.open("/events", {"api-key": key.token})
        kept = await running.clients.open("/events", {})
        await running.auth.keys.revoke(key.key.id)
        assert (await ends(task)).code == "revoked_api_key"
        assert not kept.done()


async def test_requests_behind_protect_end(run: Open) -> None:
    async with run(requirement=lambda auth: lambda: None, prepare=lambda app, auth: auth.protect(app)) as running:
        key = await running.key()
        tasks = [await running.clients.open(path, {"api-key": key.token}) for path in ("/events", "/slow", "/socket")]
        await running.auth.keys.revoke(key.key.id)
        assert [(await ends(task)).code for task in tasks] == ["revoked_api_key"] * 3


async def test_the_refusal_has_all_headers_of_a_refusal(run: Open) -> None:
    def prepare(app: FastAPI, auth: KeyAuth) -> None:
        app.add_middleware(CORSMiddleware, allow_origins=["https://front.example"], allow_credentials=True)

    async with run(prepare=prepare) as running:
        key = await running.key(allowed_origins=["https://page.example", "https://front.example"])
        tasks = [
            await running.clients.open("/slow", {"api-key": key.token, "origin": origin})
            for origin in ("https://page.example", "https://front.example")
        ]
        await running.auth.keys.revoke(key.key.id)
        page, front = [await ends(task) for task in tasks]
        assert page.headers["content-type"] == "application/problem+json"
        assert page.headers.get_list("www-authenticate") == ['api-key realm="api"', 'Bearer realm="api"']
        assert page.headers["ratelimit"].startswith('"hour";r=999')
        assert page.headers["access-control-allow-origin"] == "https://page.example"
        assert "access-control-allow-credentials" not in page.headers
        assert front.headers["access-control-allow-origin"] == "https://front.example"
        assert front.headers["access-control-allow-credentials"] == "true"
        assert json.loads(page.text)["status"] == 401


async def test_a_host_handler_answers_for_ended_requests_too(run: Open) -> None:
    from fastapi.responses import JSONResponse

    from fastapi_keyauth.errors import KeyAuthError

    async def answer(request: Any, error: KeyAuthError) -> JSONResponse:
        return JSONResponse({"code": f"mine-{error.problem().body['code']}"}, error.problem().status)

    async with run(prepare=lambda app, auth: app.add_exception_handler(KeyAuthError, answer)) as running:
        key = await running.key()
        task = await running.clients.open("/slow", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        ended = await ends(task)
        assert (ended.status, ended.code) == (401, "mine-revoked_api_key")


async def test_a_thread_goes_on_after_its_request_was_refused(run: Open) -> None:
    async with run(prepare=lambda app, auth: app.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)) as running:
        key = await running.key()
        task = await running.clients.open("/thread", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        assert (await ends(task)).code == "revoked_api_key"
        assert running.record.done == []
        running.record.thread_may_end.set()
        await until(lambda: running.record.done == ["thread"] and running.record.released == ["held"])


async def _pass_on(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    return await call_next(request)


async def test_middlewares_see_a_cancelled_request(run: Open) -> None:
    seen: list[str] = []

    async def note(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await call_next(request)
        except asyncio.CancelledError:
            seen.append(request.url.path)
            raise

    async with run(prepare=lambda app, auth: app.add_middleware(BaseHTTPMiddleware, dispatch=note)) as running:
        key = await running.key()
        paths = ("/slow", "/stream", "/events")
        tasks = [await running.clients.open(path, {"api-key": key.token}) for path in paths]
        await running.auth.keys.revoke(key.key.id)
        slow, stream, events = [await ends(task) for task in tasks]
        assert (slow.code, stream.is_cut, events.code) == ("revoked_api_key", True, "revoked_api_key")
        assert seen == ["/slow"]  # the others had returned their response
        await until(lambda: sorted(running.record.cancelled) == ["events", "slow", "stream"])


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_servers_log_no_error(run: Open, http: str, ws: str) -> None:
    async with run(options={"http": http, "ws": ws}) as running:
        key = await running.key()
        paths = ("/slow", "/stream", "/events", "/pings", "/half", "/socket", "/late")
        tasks = [await running.clients.open(path, {"api-key": key.token}) for path in paths]
        await running.auth.keys.revoke(key.key.id)
        slow, stream, events, pings, half, socket, late = [await ends(task) for task in tasks]
        assert (slow.code, events.code, socket.code) == ("revoked_api_key",) * 3
        assert pings.text.startswith('data: hello\n\n: ping\nevent: error\ndata: {"type": ')
        assert pings.text.endswith("\n\n")
        assert (stream.is_cut, half.is_cut, half.text) == (True, True, "data: not yet whole\n")
        assert (late.status, late.code) == (401, "revoked_api_key")


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_responses_of_a_known_length_are_cut(run: Open, http: str) -> None:
    async with run(options={"http": http}) as running:
        key = await running.key()
        task = await running.clients.open("/sized", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        ended = await ends(task)
        assert (ended.headers["content-length"], ended.is_cut, ended.text) == ("1000", True, "x" * 10)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_stream_that_is_cut_runs_none_of_its_background_tasks(run: Open, http: str) -> None:
    async with run(options={"http": http}) as running:
        key = await running.key()
        task = await running.clients.open("/followed", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        assert (await ends(task)).is_cut
        await until(lambda: running.record.cancelled == ["followed"])
        assert running.record.begun == ["followed"]


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("reads_on", [True, False])
async def test_a_large_download_is_cut_while_its_client_reads_slowly_or_not_at_all(
    run: Open, http: str, reads_on: bool, tmp_path: Path
) -> None:
    big_file = tmp_path / "big"
    with big_file.open("wb") as written:
        written.truncate(DOWNLOAD_BYTES)
    async with run(options={"http": http}, big_file=big_file) as running:
        key = await running.key()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.clients.port)
        writer.write(f"GET /file HTTP/1.1\r\nhost: test\r\napi-key: {key.token}\r\n\r\n".encode())
        received = len(await reader.readexactly(1000))
        await running.auth.keys.revoke(key.key.id)
        in_flight = running.auth._parts.in_flight
        assert in_flight is not None
        async with asyncio.timeout(ENDS_WITHIN_S):
            with contextlib.suppress(ConnectionError):
                while reads_on and (part := await reader.read(PART_BYTES)):
                    received += len(part)
                    await asyncio.sleep(0.001)
            await until(lambda: not in_flight.open)
            with contextlib.suppress(ConnectionError):
                received += len(await reader.read())
        writer.close()
        assert received < DOWNLOAD_BYTES


async def test_work_in_the_background_of_a_complete_response_goes_on(run: Open) -> None:
    async with run() as running:
        key = await running.key()
        task = await running.clients.open("/background", {"api-key": key.token}, runs=False)
        assert (await ends(task)).status == 200
        await until(lambda: running.record.begun == ["background"])
        await running.auth.keys.revoke(key.key.id)
        await _checks(running)
        assert running.record.cancelled == []
        running.record.go_on.set()
        await until(lambda: running.record.done == ["background"])


async def test_nothing_ends_if_the_setting_is_off(run: Open) -> None:
    async with run(end_in_flight_within_s=None) as running:
        key = await running.key()
        task = await running.clients.open("/slow", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        running.record.go_on.set()
        assert (await ends(task)).status == 200


async def test_short_requests_cause_no_checks(run: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:
        checks = _count_checks(running, monkeypatch)
        key = await running.key()
        until_s = time.monotonic() + 3 * WITHIN_S
        while time.monotonic() < until_s:
            short = await running.clients.open("/short", {"api-key": key.token}, runs=False)
            assert (await ends(short)).status == 200
        assert checks == []


async def test_open_requests_are_checked_together(run: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:
        checks = _count_checks(running, monkeypatch)
        keys = [await running.key() for _ in range(3)]
        for key in keys * 3:
            await running.clients.open("/events", {"api-key": key.token})
        checks.clear()
        began = time.monotonic()
        await until(lambda: len(checks) >= 3)
        assert time.monotonic() - began > WITHIN_S  # three checks take more than two periods of 0.8 times the setting
        assert all(sorted(check) == sorted({(key.key.id, OWNER) for key in keys}) for check in checks)


async def test_an_ended_request_is_logged_and_counted(run: Open, caplog: pytest.LogCaptureFixture) -> None:
    async with run() as running:
        counters = running.auth._parts.metrics.counters  # shared with other tests, as by all with the same prefix
        before = counters.ended["revoked_api_key"], counters.refused["revoked_api_key"]
        key = await running.key()
        task = await running.clients.open("/slow", {"api-key": key.token})
        await running.auth.keys.revoke(key.key.id)
        assert (await ends(task)).status == 401
        (line,) = [line for line in caplog.records if getattr(line, "keyauth_event", "") == "in_flight_ended"]
        assert line.getMessage() == f"ended in flight: revoked_api_key key={key.key.id} address=127.0.0.1 GET '/slow'"
        assert (counters.ended["revoked_api_key"] - before[0], counters.refused["revoked_api_key"] - before[1]) == (
            1,
            0,
        )


async def test_a_key_that_revokes_itself_gets_its_answer(run: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(app: FastAPI, auth: KeyAuth) -> None:
        app.include_router(auth.keys_router, prefix="/api-keys")

    async with run(prepare=prepare) as running:
        key = await running.key(scopes=["keys:write"])
        publish = running.auth._parts.outbox.publish

        async def slowly(*args: Any) -> Any:
            await _checks(running)
            return await publish(*args)

        monkeypatch.setattr(running.auth._parts.outbox, "publish", slowly)
        response = await running.clients._http.delete(f"/api-keys/{key.key.id}", headers={"api-key": key.token})
        assert response.status_code == 204


def _count_checks(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """Return a list to which each question to the limiter about running requests is added."""
    limiter = running.auth._parts.limiter
    ask, found = limiter.find_generations, []

    async def count(holders: Any) -> list[str]:
        found.append(list(holders))
        return await ask(holders)

    monkeypatch.setattr(limiter, "find_generations", count)
    return found


async def _checks(running: Running) -> None:
    """Wait until all open requests have been checked twice from now."""
    in_flight = running.auth._parts.in_flight
    assert in_flight is not None
    for _ in range(2):
        checked_at = in_flight._checked_at
        await until(lambda: in_flight._checked_at > checked_at or not in_flight.open)  # noqa: B023  # awaited within the loop
    await until(lambda: in_flight._check is None or in_flight._check.done())
