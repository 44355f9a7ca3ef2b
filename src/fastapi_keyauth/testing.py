# Annotations stay real objects in this module: FastAPI reads them.
"""Tools for users' own tests: a frozen clock, cheap settings, principals without keys.

The fixtures of ``fastapi_keyauth.pytest_plugin`` are built from these.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI
from fastapi.security import SecurityScopes

from fastapi_keyauth.auth.session_checks import check_scopes
from fastapi_keyauth.domain.principals import ALL, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.http import dependencies
from fastapi_keyauth.http.routes import iterate_dependants, iterate_routes
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.settings.settings import KeyAuthSettings

__all__ = ["FrozenClock", "cheap_settings", "key_principal", "signed_in"]

_Principal = KeyPrincipal | SessionPrincipal
_HALF_PAST = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)


class FrozenClock:
    """A clock that stands still until it is moved: ``KeyAuth(settings, clock=FrozenClock())``.

    Args:
        at: The first time. Default: half past twelve, so that no hour ends by chance.

    Raises:
        ValueError: If the time has no time zone.
    """

    def __init__(self, at: datetime = _HALF_PAST) -> None:
        self.move_to(at)

    def __call__(self) -> float:
        """Return the seconds since 1970."""
        return self._now.timestamp()

    def __repr__(self) -> str:
        return f"FrozenClock({self._now.isoformat()})"

    @property
    def now(self) -> datetime:
        """The current time of this clock, UTC."""
        return self._now

    def move(self, by: timedelta | float) -> None:
        """Move the clock forward by a timedelta, or by seconds."""
        self._now += by if isinstance(by, timedelta) else timedelta(seconds=by)

    def move_to(self, at: datetime) -> None:
        """Set the clock to a time.

        Raises:
            ValueError: If the time has no time zone.
        """
        if at.tzinfo is None:
            raise ValueError("a clock requires a time with a time zone, such as datetime(..., tzinfo=UTC)")
        self._now = at.astimezone(UTC)


def cheap_settings(**changes: Any) -> KeyAuthSettings:
    """Return settings for tests: the defaults, with cheap hashing and a database in memory.

    ``KEYAUTH_*`` variables and ``.env`` are ignored, so that a test means the same on every machine.

    Raises:
        SetupError: If a change is invalid.
    """
    fields = KeyAuthSettings.model_fields
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    cheap = {
        "database_url": "sqlite+aiosqlite://",
        "argon2_time_cost": 1,
        "argon2_memory_kib": 8,
        "argon2_parallelism": 1,
    }
    return KeyAuthSettings(_env_file=None, **{**defaults, **cheap, **changes})


def key_principal(**fields: Any) -> KeyPrincipal:
    """Return the principal of a key that does not exist. Every field has a default, which ``fields`` replace."""
    defaults: dict[str, Any] = {
        "id": "TestKey00000",
        "name": "test key",
        "owner_id": "test-owner",
        "environment": "test",
        "scopes": {ALL},
        "metadata": {},
        "expires_at": None,
        "hourly_limit": None,
        "remaining": None,
        "reset_at": None,
    }
    values = {**defaults, **fields}
    scopes = values["scopes"]
    return KeyPrincipal(**{**values, "scopes": frozenset(scopes.split() if isinstance(scopes, str) else scopes)})


@contextmanager
def signed_in(
    app: FastAPI, auth: KeyAuth, key: KeyPrincipal | None = None, session: SessionPrincipal | None = None
) -> Iterator[None]:
    """Admit every request as this key, this user, or both, without a token and without any lookup.

    It uses ``app.dependency_overrides``, so neither a database nor Redis is needed, and neither limits nor blocks
    apply. Scopes are checked. Paths behind ``auth.protect``, the management routes and the key page are not opened:
    send them the token of a real key or session. Results of ``auth.require`` are replaced like their short forms, in
    all routes that the application has when this is entered.

    Args:
        app: The application under test.
        auth: The KeyAuth whose dependencies its routes use.
        key: Returned by ``require_key`` and ``optional_key``.
        session: Returned by ``require_session``; with ``key`` also by ``require_key_and_session``.
            ``require_key_or_session`` returns the key, or the session if there is no key.
    """
    before = dict(app.dependency_overrides)
    for requirement in _requirements(app, auth):
        holders = _holders(requirement, key, session)
        if holders:
            app.dependency_overrides[requirement] = _override_for(requirement, holders)
    try:
        yield
    finally:
        app.dependency_overrides.clear()
        app.dependency_overrides.update(before)


def _requirements(app: FastAPI, auth: KeyAuth) -> Iterator[Any]:
    """Yield the dependencies of the KeyAuth: those that it has itself, and those that routes got from ``require``."""
    yield from (auth.require_key, auth.optional_key, auth.require_session, auth.require_key_and_session)
    yield auth.require_key_or_session
    for _, dependant in iterate_routes(app):
        for inner in iterate_dependants(dependant):
            if getattr(inner.call, "handler", None) is auth.require_key.handler:
                yield inner.call


def _holders(requirement: Any, key: KeyPrincipal | None, session: SessionPrincipal | None) -> list[_Principal]:
    """Return those who must hold the scopes; the dependency returns the last. Empty: it is not replaced."""
    found: list[_Principal | None] = []
    match requirement:
        case dependencies.RequireKey() | dependencies.OptionalKey():
            found = [key]
        case dependencies.RequireSession():
            found = [session]
        case dependencies.RequireKeyAndSession():
            found = [key, session and replace(session, key=key)]
        case dependencies.RequireKeyOrSession():
            found = [key or session]
        case _:
            pass  # the dependency of the management routes
    holders = [holder for holder in found if holder is not None]
    return holders if len(holders) == len(found) else []


def _override_for(requirement: Any, holders: list[_Principal]) -> Callable[[SecurityScopes], Awaitable[_Principal]]:
    async def give(scopes: SecurityScopes) -> _Principal:
        for holder in holders:
            check_scopes([*requirement.required_scopes, *scopes.scopes], holder)
        return holders[-1]

    return give
