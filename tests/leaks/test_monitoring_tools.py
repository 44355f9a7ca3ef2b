"""Monitoring tools that report requests and stack frames, set up as docs/how-to/error-tracking.md says."""

import asyncio
import contextvars
import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import pytest
import sentry_sdk
import structlog
from fastapi import Depends, FastAPI
from loguru import logger as loguru_logger
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from fastapi_keyauth import KeyAuth, KeyPrincipal, redact_event
from fastapi_keyauth.domain.redaction import MAX_DEPTH, TOO_DEEP
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, new_session_token
from fastapi_keyauth.testing import cheap_settings
from tests.helpers.sentry_integrations import own_integrations

API_TOKEN, SESSION_TOKEN = format_token("acme", "live", new_key_id(), new_secret()), new_session_token()


class KeptEvents(Transport):
    """Transport that stores events instead of sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events.extend(item.payload.json for item in envelope.items if item.payload.json)


def crash(report: Callable[[], object] | None = None) -> str:
    """Send a token to a route that breaks, by header and as Bearer, and return the token."""
    token = ""
    auth = KeyAuth(cheap_settings())
    app = FastAPI()
    auth.install(app)

    @app.get("/boom")
    async def boom(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
        raise RuntimeError(f"boom {token}")

    async def send() -> None:
        nonlocal token
        async with auth, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            token = (await auth.keys.create("ada", "prod")).token
            for headers in ({"api-key": token}, {"Authorization": f"Bearer {token}"}):
                try:
                    await client.get("/boom", headers=headers)
                except RuntimeError:
                    if report is not None:
                        report()

    asyncio.run(send())
    return token


@contextmanager
def sentry(**options: Any) -> Iterator[list[Any]]:
    kept = KeptEvents()
    with own_integrations():
        sentry_sdk.init(dsn="https://x@sentry.example/1", transport=kept, traces_sample_rate=1.0, **options)
    try:
        yield kept.events
    finally:
        sentry_sdk.get_client().close()
        with own_integrations():
            sentry_sdk.init()


@pytest.mark.parametrize("is_redacted", [True, False])
def test_sentry_gets_no_token(is_redacted: bool) -> None:
    options = {"before_send": redact_event, "before_send_transaction": redact_event} if is_redacted else {}
    with sentry(**options) as events:
        # In a context of its own: Sentry begins no transaction in one that an earlier test has left inside of another.
        token = contextvars.Context().run(crash)
        sentry_sdk.flush()
        kinds = {event.get("type") for event in events}
        assert kinds == {None, "transaction"}
        assert (token in json.dumps(events)) is not is_redacted  # otherwise this proves nothing


def test_loguru_writes_no_token() -> None:
    written = io.StringIO()

    def write(message: object) -> None:
        written.write(redact_event(str(message)))

    sink = loguru_logger.add(write, diagnose=True, backtrace=True)
    try:
        token = crash(lambda: loguru_logger.exception("failed"))
    finally:
        loguru_logger.remove(sink)
    assert "boom <token" in written.getvalue()
    assert token[-20:] not in written.getvalue()


def test_structlog_writes_no_token() -> None:
    written = io.StringIO()
    structlog.configure(
        processors=[
            structlog.processors.dict_tracebacks,
            lambda _logger, _method, event: redact_event(event),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(written),
    )
    try:
        token = crash(lambda: structlog.get_logger().exception("failed", token=API_TOKEN))
    finally:
        structlog.reset_defaults()
    assert "boom <token" in written.getvalue()
    assert token[-20:] not in written.getvalue()
    assert API_TOKEN[-20:] not in written.getvalue()


@pytest.mark.parametrize("token", [API_TOKEN, SESSION_TOKEN], ids=["api", "session"])
def test_tokens_are_found_in_every_container(token: str) -> None:
    event: dict[str, Any] = {
        "text": f"key={token}",
        "raw": [(b"api-key", token.encode())],
        "set": {token},
        token: ({"deep": [token]}, 7, None),
        "buffers": [bytearray(token.encode()), memoryview(token.encode())],
        "queue": deque([token]),
        "view": {"key": token}.values(),
    }
    before = repr(event)
    redacted = redact_event(event)
    assert token[-20:] not in repr(redacted)
    assert redacted["raw"] == [(b"api-key", redacted["raw"][0][1])]
    assert isinstance(redacted["set"], set)
    assert repr(event) == before


def test_a_container_that_contains_itself_is_cut_off() -> None:
    event: list[Any] = [API_TOKEN]
    event.append(event)
    assert repr(redact_event(event)).count("<token") == MAX_DEPTH
    assert TOO_DEEP in repr(redact_event(event))
