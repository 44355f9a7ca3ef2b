"""Every operation runs once with every logger at DEBUG; then no secret is found except where it was returned."""

import asyncio
import gc
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from fastapi_keyauth import AuthEvent, KeyAuth, KeyAuthSettings, errors
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.verifier import Location
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import TokenParser
from fastapi_keyauth.store.tables import metadata
from tests.conftest import Stack
from tests.helpers.asgi import call
from tests.helpers.contract_app import build_app
from tests.helpers.opentelemetry_lab import Lab
from tests.helpers.served import exchange, request, served, status_of
from tests.helpers.stage import OpenScene, Scene
from tests.helpers.tokens import forge, secret_of, spoiled

WINDOW, STEP = 12, 6
"""Every sixth run of twelve characters is looked for, so that seventeen in a row cannot hide. (A token's last four are
shown on purpose.)"""
NOISY = ("", "fastapi_keyauth", "sqlalchemy", "aiosqlite", "asyncpg", "redis", "uvicorn", "asyncio", "websockets")


PATHS = (b"/models", b"/items", b"/maybe", b"/teapot", b"/crash", b"/stream", b"/api-keys/current")


class Everything(logging.Handler):
    """Handler that stores every record as text: message, arguments, traceback."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {record.__dict__}")


@contextmanager
def all_loggers_at_debug() -> Iterator[Everything]:
    """Collect the records of all loggers during the test."""
    handler = Everything()
    loggers = [logging.getLogger(name) for name in NOISY]
    loggers += [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = [(logger, logger.level, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level, disabled in before:
            logger.setLevel(level)
            logger.disabled = disabled


class Secrets:
    """Texts that must not be found: the random part of every token that was created or sent, valid or not."""

    def __init__(self) -> None:
        self._parts: set[str] = set()

    def add(self, token: str) -> str:
        """Store a token, and return it."""
        random_part = token.rsplit("_", 1)[1]
        self._parts |= {random_part[start : start + WINDOW] for start in range(0, len(random_part) - WINDOW, STEP)}
        return token

    def found_in(self, haystack: str) -> list[str]:
        """Return the parts of tokens in a text, with the text before them."""
        places = [haystack.find(part) for part in self._parts if part in haystack]
        return [haystack[max(0, place - 60) : place + WINDOW] for place in places]


async def speak(port: int, token: str, bearer: str, *lines: bytes, **rest: Any) -> bytes:
    """Send one request with a key and a session."""
    headers = [b"api-key: " + token.encode(), b"authorization: Bearer " + bearer.encode(), *lines]
    return await exchange(port, request(*headers, **rest))


async def do_everything(scene: Scene, port: int, secrets: Secrets) -> list[bytes]:
    """Make every kind of request and change. Return the responses, except those that contain a token."""
    session = secrets.add(await scene.session())
    key = await scene.key()
    secrets.add(key.token)
    wrong = secrets.add(forge(key_id=key.id, secret="Wr0ng" + "x7Q" * 12 + "zz"))
    answers = []
    for token in (
        key.token,
        wrong,
        secrets.add(spoiled(key.token)),
        key.token[:-5],
        f"{key.token} x",
        f"'{key.token}'",
    ):
        answers += [await speak(port, token, session, path=path) for path in PATHS]
        answers.append(await exchange(port, request(b"authorization: Bearer " + token.encode())))
    upgrade = (b"upgrade: websocket", b"sec-websocket-version: 13", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")
    for token, status in ((key.token, 101), (wrong, 401)):
        sent = request(b"api-key: " + token.encode(), *upgrade, path=b"/ws").replace(b": close", b": upgrade")
        answers.append(await exchange(port, sent, head_only=True))
        assert status_of(answers[-1]) == status
    bad_sessions = (session[:-1] + "!", secrets.add(session[:10] + "Z" * 46), "eyJ" + key.token[20:])
    answers += [await speak(port, key.token, bad, path=b"/me") for bad in bad_sessions]
    misplaced = b'{"name": "%s", "token": "%s"}' % (key.token.encode()[:90], key.token.encode())
    answers.append(await exchange(port, sent_by(session, misplaced, b"/api-keys")))
    assert status_of(answers[-1]) == 422
    return answers + await change_everything(scene, port, secrets, session, key.id)


async def change_everything(scene: Scene, port: int, secrets: Secrets, session: str, key_id: str) -> list[bytes]:
    """Make every kind of change, through routes and from code."""
    path = b"/api-keys/" + key_id.encode()
    for body, at in ((b'{"name": "n"}', b"/api-keys"), (b"{}", path + b"/rotate")):
        secrets.add(token_in(await exchange(port, sent_by(session, body, at))))
    rotated = await scene.auth.keys.rotate(key_id, timedelta(0))
    token = secrets.add(rotated.token)
    await scene.auth.keys.update(key_id, name="changed", allowed_origins=["https://a.example"])
    tails = (b"", b"/usage", b"/events")
    answers = [await speak(port, token, session, path=path + tail) for tail in tails]
    answers.append(await speak(port, token, session, path=b"/api-keys?q=x"))
    answers.append(await speak(port, token, session, b"origin: https://b.example"))
    answers.append(await speak(port, token, session, method=b"DELETE", path=path))
    answers.append(await speak(port, token, session))
    await scene.auth.sessions.revoke(session)
    answers.append(await speak(port, token, session, path=b"/me"))
    return answers + [await exchange(port, request(path=page)) for page in (b"/openapi.json", b"/docs", b"/redoc")]


def sent_by(session: str, body: bytes, path: bytes) -> bytes:
    """Send a request whose response contains a token."""
    lines = (b"authorization: Bearer " + session.encode(), b"content-type: application/json")
    return request(*lines, b"content-length: %d" % len(body), method=b"POST", path=path, body=body)


def token_in(answer: bytes) -> str:
    """Return the token in a response, which must not be stored anywhere on the way."""
    assert status_of(answer) == 201, answer
    assert b"\r\ncache-control: no-store\r\n" in answer
    return answer.decode().partition('"token":"')[2].partition('"')[0]


async def stored_in_database(auth: KeyAuth) -> str:
    """Return every row of every table."""
    engine = auth._parts.database._engine
    assert engine is not None
    async with engine.connect() as connection:
        rows = [(await connection.execute(text(f"SELECT * FROM {name}"))).all() for name in metadata.tables]  # noqa: S608  # our own names
    return repr(rows)


def database_files(folder: Path) -> str:
    """Return the database files, including deleted rows that are not overwritten."""
    return b"".join(path.read_bytes() for path in folder.glob("*.db*")).decode("latin-1")


async def stored_in_redis(url: str) -> str:
    """Return every name and value, and the commands that the server has recorded."""
    async with Redis.from_url(url) as client:
        names = [name async for name in client.scan_iter()]
        assert names
        read: dict[Any, Any] = {b"hash": client.hgetall, b"string": client.get, b"set": client.smembers}
        values = [await read[await client.type(name)](name) for name in names]
        return repr((names, values, await client.slowlog_get(1000)))


def reprs_of_all(auth: KeyAuth) -> str:
    """Return the repr of every living object of the package."""
    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("fastapi_keyauth")]
    assert any(isinstance(thing, KeySnapshot) for thing in ours)
    return "\n".join(map(repr, [auth, auth.settings, auth.keys, auth.sessions, *ours]))


@pytest.mark.timeout(120)
async def test_no_secret_is_logged_stored_or_returned(open_scene: OpenScene, tmp_path: Path) -> None:
    secrets = Secrets()
    with all_loggers_at_debug() as log:
        asyncio.get_running_loop().set_debug(True)
        async with open_scene(block_after_failures=10_000) as scene, served(scene.app, "httptools") as port:
            answers = await do_everything(scene, port, secrets)
            shown = reprs_of_all(scene.auth)
            stored = await stored_in_database(scene.auth)
            if scene.auth.settings.redis_url is not None:
                stored += await stored_in_redis(scene.auth.settings.redis_url)
            url = str.__str__(scene.auth.settings.database_url)
    assert len(log.lines) > 500
    # The one leak is not ours: at DEBUG, uvicorn's WebSocket library writes the headers of an upgrade.
    upgrades = [line for line in log.lines if line.startswith("uvicorn.error DEBUG < ")]
    assert secrets.found_in("\n".join(map(redact, upgrades))) == []
    assert secrets.found_in("\n".join(line for line in log.lines if line not in upgrades)) == []
    assert secrets.found_in(b"\n".join(answers).decode("latin-1")) == []
    assert secrets.found_in(shown) == []
    assert secrets.found_in(stored) == []
    if url.startswith("sqlite"):
        files = database_files(tmp_path)
        assert "changed" in files
        assert secrets.found_in(files) == []


EVERY_ERROR = [
    errors.MalformedApiKey("its checksum is wrong"),
    errors.InvalidApiKey("0123456789Ab"),
    errors.ChangePending(10, forge()),
    errors.StoreUnavailable(),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_no_error_shows_a_secret(stack: Any, error: errors.KeyAuthError) -> None:
    """The token of a pending rotation is in the body, where its owner needs it, and nowhere else."""
    try:
        raise error
    except errors.KeyAuthError as raised:
        shown = "".join(traceback.format_exception(raised)) + repr(raised) + str(raised) + repr(raised.args)
    assert secret_of(forge())[:WINDOW] not in shown


def test_no_object_of_the_request_path_shows_a_secret(stack: Any) -> None:
    token = forge()
    credentials, parsed = Credentials(token), TokenParser("ka").parse(token)
    credentials.session = token
    context, location = AuthContext(credentials, None, None), Location(token, b"digest", parsed)
    for thing in (credentials, context, parsed, location, TokenParser("ka")):
        assert secret_of(token)[:WINDOW] not in repr(thing) + str(thing)


async def test_no_event_span_or_metric_contains_a_secret(stack: Stack) -> None:
    lab, events, secrets = Lab(), list[AuthEvent](), Secrets()
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "block_after_failures": 2}
    settings = KeyAuthSettings(_env_file=None, **{**stack.settings, **cheap})
    auth = KeyAuth(settings, on_event=events.append, telemetry=lab.telemetry)
    app = build_app(auth)
    async with auth:
        created = await auth.keys.create("owner", "n", hourly_limit=2)
        tokens = [created.token] * 3 + [forge(key_id=created.key.id), spoiled(created.token), created.token]
        with lab.tracers.get_tracer("host").start_as_current_span("request"):
            for token in tokens:
                await call(app, headers=[(b"api-key", secrets.add(token).encode())])
        secrets.add((await auth.keys.rotate(created.key.id, timedelta(0))).token)
        await auth.keys.revoke(created.key.id)
    spans = lab.spans.get_finished_spans()
    assert {event.kind for event in events} >= {"created", "failed", "blocked", "limited", "rotated", "revoked"}
    assert len(spans) >= 5
    told = repr(events) + "".join(span.to_json() for span in spans) + repr(lab.read())
    assert created.key.id in told
    assert secrets.found_in(told) == []
