"""What type checkers see of the public API: `make check` reads this with mypy and with pyright, and nobody runs it.

A line that must be refused says so by an ignore; both checkers complain of one that ignores nothing.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI, Security
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from fastapi_keyauth import (
    AuthEvent,
    Block,
    ChangePending,
    CreatedKey,
    EventPage,
    Key,
    KeyAuth,
    KeyAuthSettings,
    KeyPage,
    KeyPrincipal,
    RateLimitExceeded,
    SessionPrincipal,
    UsageHour,
    redact,
)
from fastapi_keyauth.testing import FrozenClock, cheap_settings, key_principal, signed_in


async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
    """A resolver of an application's own sessions."""
    return SessionPrincipal(user_id=token) if connection.client else None


async def listen(event: AuthEvent) -> None:
    """A hook that is a coroutine function."""
    assert_type(event.key_id, str | None)
    assert_type(event.at, datetime)


def listen_in_a_thread(event: AuthEvent) -> None:
    """A hook that is a function."""


auth = KeyAuth(KeyAuthSettings(database_url="sqlite+aiosqlite:///:memory:"), session_resolver=resolve, on_event=listen)
KeyAuth(on_event=listen_in_a_thread)
KeyAuth(session_resolver=listen)  # type: ignore[arg-type]  # takes a token and a connection

app = FastAPI()
assert_type(auth.protect(app, exempt=["/health"]), FastAPI)
app.include_router(auth.keys_router, prefix="/api-keys")
app.include_router(auth.dashboard_router, prefix="/settings/api-keys")


def protect(other: ASGIApp) -> None:
    """Any ASGI application."""
    assert_type(auth.protect(other), ASGIApp)


@app.get("/models")
async def models(
    key: Annotated[KeyPrincipal, Depends(auth.require_key)],
    user: Annotated[SessionPrincipal, Security(auth.require_key_and_session, scopes=["models:read"])],
) -> dict[str, Any]:
    """A route."""
    assert_type(key.scopes, frozenset[str])
    assert_type(key.remaining, int | None)
    assert_type(key.holds("models:read"), bool)
    assert_type(user.key, KeyPrincipal | None)
    key.name = "another"  # type: ignore[misc]  # principals are frozen
    return {"owner": key.owner_id}


async def dependencies(connection: HTTPConnection) -> AsyncIterator[None]:
    """What dependencies give where code calls them."""
    from fastapi.security import SecurityScopes

    scopes = SecurityScopes()
    assert_type(await auth.require_key(connection, scopes), KeyPrincipal)
    assert_type(await auth.optional_key(connection, scopes), KeyPrincipal | None)
    assert_type(await auth.require_session(connection, scopes), SessionPrincipal)
    assert_type(await auth.require_key_and_session(connection, scopes), SessionPrincipal)
    assert_type(await auth.require_key_or_session(connection, scopes), KeyPrincipal | SessionPrincipal)
    yield


async def manage() -> None:
    """Keys, sessions and blocks from code."""
    async with auth as started:
        assert_type(started, KeyAuth)
    made = await auth.keys.create("alice", "CI", scopes={"models:read"}, expires_at=datetime.now().astimezone())
    assert_type(made, CreatedKey)
    assert_type(made.token, str)
    assert_type(made.key.expires_at, datetime | None)
    assert_type(await auth.keys.get(made.key.id), Key)
    assert_type(await auth.keys.update(made.key.id, name="CI 2"), Key)
    assert_type(await auth.keys.list(owner_id="alice"), KeyPage)
    assert_type(await auth.keys.usage(made.key.id, hours=24), list[UsageHour])
    assert_type(await auth.keys.events(made.key.id), EventPage)
    assert_type(await auth.upgrade(), list[str])
    assert_type(await auth.blocks.list(), list[Block])
    assert_type(await auth.blocks.clear("192.0.2.1"), bool)
    assert_type(await auth.sessions.create("alice", ttl=timedelta(hours=1)), str)
    assert_type(redact(made.token), str)
    await auth.keys.create("alice")  # type: ignore[call-arg]  # a key wants a name
    await auth.keys.rotate(made.key.id, overlap=60)  # type: ignore[arg-type]  # of what unit? a timedelta says it
    try:
        await auth.keys.revoke(made.key.id)
    except ChangePending as pending:
        assert_type(pending.holds_within_s, int)
        assert_type(pending.token, str | None)
    except RateLimitExceeded as refusal:
        assert_type(refusal.retry_after_s, int)


def try_it() -> None:
    """The testing kit."""
    clock = FrozenClock()
    clock.move(timedelta(hours=1))
    assert_type(cheap_settings(), KeyAuthSettings)
    with signed_in(app, KeyAuth(cheap_settings(), clock=clock), key=key_principal(owner_id="alice")):
        pass
