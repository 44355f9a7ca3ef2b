"""KeyAuth: the one object that users build."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from fastapi_keyauth.auth.reservations import Reservation
from fastapi_keyauth.auth.sessions import SessionResolver
from fastapi_keyauth.domain.limit_sets import parse_cost
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.http import dependencies
from fastapi_keyauth.http.dashboard.options import DashboardOptions
from fastapi_keyauth.http.dashboard.router import build_dashboard_router
from fastapi_keyauth.http.installation import Installations, installed_on
from fastapi_keyauth.http.routers.callers import OwnersOf
from fastapi_keyauth.http.routers.keys import build_keys_router
from fastapi_keyauth.http.routers.leaks import build_leaks_router
from fastapi_keyauth.http.routers.signing_keys import FindKeys, fetch_github_keys
from fastapi_keyauth.lifecycle import Lifecycle
from fastapi_keyauth.parts import Clock, Parts
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.telemetry.event_hook import OnEvent
from fastapi_keyauth.telemetry.providers import Telemetry

App = TypeVar("App", bound=ASGIApp)


class KeyAuth:
    """API-key authentication for an application.

    Build one, call ``install``, and use its dependencies. Nothing is opened before the application starts.

    Args:
        settings: The settings. Default: read from ``KEYAUTH_*`` and ``.env``.
        session_resolver: ``async (token, connection) -> SessionPrincipal | None`` in place of the built-in sessions.
        owners_of: ``async (session) -> {owner_id: permissions}``: the owners that a session may act for on the
            management routes, each with ``keys:read``, ``keys:write`` or both. It is called for every such request.
            Default: a session acts for its own user id. Added in 0.2.
        dashboard: Options of the key page; see ``DashboardOptions``.
        clock: Seconds since 1970, for tests. If given, it is also used instead of the clock of Redis.
        on_event: Called with an ``AuthEvent`` for events of keys, addresses, Redis and the database: a function, which
            runs in a thread, or a coroutine function. A request never waits for it.
        telemetry: True: metrics and spans go to OpenTelemetry's global providers, if it is installed and they are set.
            A ``Telemetry``: to its providers. False: nowhere.

    Attributes:
        settings: The settings.
        keys: Creates and changes keys from code; see ``Keys``.
        owners: Limits, suspends and erases the owners of keys; see ``Owners``. Added in 0.2.
        sessions: Creates and revokes the built-in sessions; see ``Sessions``.
        leaks: Takes reports of leaked tokens; see ``Leaks``.
        blocks: Lists and lifts blocks of addresses; see ``Blocks``.
        usage: Reports what was used, and hands out closed days; see ``UsageReports``. Added in 0.2.
        require_key: Dependency -> ``KeyPrincipal``.
        require_session: Dependency -> ``SessionPrincipal``; requires no key.
        require_key_and_session: Dependency -> ``SessionPrincipal`` whose ``key`` is the key.
        require_key_or_session: Dependency -> ``KeyPrincipal`` or ``SessionPrincipal``. Added in 0.2.
        optional_key: Dependency -> ``KeyPrincipal`` or None.

    Raises:
        SetupError: If a setting is invalid.
    """

    def __init__(
        self,
        settings: KeyAuthSettings | None = None,
        *,
        session_resolver: SessionResolver | None = None,
        owners_of: OwnersOf | None = None,
        dashboard: DashboardOptions | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
        telemetry: Telemetry | bool = True,
    ) -> None:
        self.settings = settings = KeyAuthSettings() if settings is None else settings
        self._parts = parts = Parts(settings, session_resolver, owners_of, clock, on_event, telemetry)
        self.keys = parts.keys
        self.owners = parts.owners
        self.sessions = parts.sessions
        self.leaks = parts.leaks
        self.blocks = parts.blocks
        self.usage = parts.usage_reports
        handler = parts.request_handler
        self.require_key = dependencies.RequireKey(handler, settings.header_name)
        self.require_session = dependencies.RequireSession(handler, settings.header_name)
        self.require_key_and_session = dependencies.RequireKeyAndSession(handler, settings.header_name)
        self.require_key_or_session = dependencies.RequireKeyOrSession(handler, settings.header_name)
        self.optional_key = dependencies.OptionalKey(handler, settings.header_name)
        manager = dependencies.RequireManager(handler, settings.header_name)
        self._dashboard = DashboardOptions() if dashboard is None else dashboard
        self._manager = manager
        self._installations = Installations(self, handler, settings, parts.in_flight)
        self._lifecycle = Lifecycle(parts, settings, self._installations.check)

    def __repr__(self) -> str:
        return f"KeyAuth({self.settings!r})"

    @cached_property
    def keys_router(self) -> APIRouter:
        """The management routes; mount them with ``app.include_router(auth.keys_router, prefix="/api-keys")``."""
        parts = self._parts
        requirements = (self.require_key, self.require_session, self._manager)
        return build_keys_router(
            parts.management,
            parts.queries,
            parts.audit,
            parts.owners,
            parts.usage_reports,
            self.settings,
            *requirements,
            parts.callers,
        )

    @cached_property
    def dashboard_router(self) -> APIRouter:
        """The key page; mount it with ``app.include_router(auth.dashboard_router, prefix="/settings/api-keys")``."""
        parts = self._parts
        return build_dashboard_router(
            self._dashboard, self.keys_router, parts.queries, parts.owners, self.settings, self._manager, parts.callers
        )

    def build_leaks_router(self, *, find_keys: FindKeys = fetch_github_keys, revoke: bool = True) -> APIRouter:
        """Build a router with one route, ``POST ""``: the webhook for secret scanners, in GitHub's format.

        It checks the signature over the raw body and reports each token to ``auth.leaks``. Mount it where the scanner
        sends its reports. It takes no API key: the signature is the credential. Added in 0.2, in place of a function.

        Args:
            find_keys: Returns the scanner's public keys by identifier. Default: GitHub's.
            revoke: False: only record leaks and notify ``on_event``.

        Raises:
            SetupError: If the package ``cryptography`` is not installed (extra ``leaks``).
        """
        return build_leaks_router(self.leaks, find_keys=find_keys, revoke=revoke)

    def require(
        self,
        *,
        scopes: Iterable[str] = (),
        key: bool = True,
        session: bool = False,
        optional: bool = False,
        cost: int | Mapping[str, int] = 1,
    ) -> Any:
        """Return a dependency on an API key, with a cost and scopes. Added in 0.2.

        ``require_key``, ``optional_key`` (``optional=True``), ``require_key_and_session`` (``session=True``) and
        ``require_session`` (``key=False, session=True``) are short forms of it. Several requirements on one request
        charge the highest cost of each unit once.

        Args:
            scopes: What the key, and the session if one is required, must hold.
            key: False: require no key; with ``session`` alone.
            session: True: require a session. The dependency then returns a ``SessionPrincipal``.
            optional: True: return None if no token was sent.
            cost: Units of ``requests``, or unit to number, each from 0 to 1,000,000,000. Only keys are charged.

        Returns:
            The dependency, which returns a ``KeyPrincipal`` unless said otherwise.

        Raises:
            ValueError: If a unit is not declared in the setting ``units``, a number is out of bounds, or a requirement
                with a session is to be optional, or neither a key nor a session is required.
        """
        if session and optional:
            raise ValueError("a requirement with a session cannot be optional")
        if not key and not session:
            raise ValueError("a requirement without a key requires a session: key=False, session=True")
        kind: type[Any] = dependencies.OptionalKey if optional else dependencies.RequireKey
        if session:
            kind = dependencies.RequireKeyAndSession if key else dependencies.RequireSession
        names = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        numbers = {REQUESTS: 1, **cost} if isinstance(cost, Mapping) else cost
        parsed = parse_cost(numbers, self.settings.units)
        return kind(self._parts.request_handler, self.settings.header_name, names, parsed)

    def reserve(self, key: KeyPrincipal, **units: int) -> Reservation:
        """Reserve units for a cost that is known only afterwards. Added in 0.2.

        ``hold = await auth.reserve(key, tokens=4000)``, then ``await hold.settle(tokens=1312)``; or
        ``async with auth.reserve(key, tokens=4000) as hold``. A hold that is not settled within ``reservation_ttl_s``
        stays charged in full.

        Args:
            key: The key, as a dependency returned it.
            units: What to reserve of each unit.

        Returns:
            A reservation, which raises ``RateLimitExceeded`` when it is awaited if a limit lacks room.

        Raises:
            ValueError: If no unit is given, one is not declared, or a number is out of bounds.
        """
        return self._parts.reservations.reserve(key, units)

    def install(self, app: Starlette) -> None:
        """Join an application: its lifespan (beside its own), its error handlers, its responses and its OpenAPI.

        Call it once on every FastAPI app whose routes use the dependencies, also on those that are mounted. A second
        call does nothing. Its position among ``app.add_middleware`` calls does not matter: what it does to responses is
        done outside of all middlewares of the application. A handler of the application's own for ``KeyAuthError`` or
        one of its subclasses, registered before or after, answers in place of ours.

        Raises:
            RuntimeError: If the application has started.
        """
        self._installations.install(app)

    def is_installed_on(self, app: ASGIApp) -> bool:
        """Return whether ``install`` or ``protect`` was called with this application."""
        return app in self._installations

    @staticmethod
    def installed_on(app: object) -> "tuple[KeyAuth, ...]":
        """Return the KeyAuth objects that are installed on an application, in the order of their ``install``.

        Added in 0.2.
        """
        return installed_on(app)

    def protect(self, app: App, exempt: Iterable[str] = ()) -> App:
        """Require an API key for everything but the exempt paths, before routing.

        A FastAPI or Starlette app is protected in place (and installed on, if it is not yet); for any other ASGI
        application use the returned one. ``request.state.key`` holds the principal.

        The check runs where this call stands among ``app.add_middleware`` calls: middlewares that are added later are
        outside of it and see its refusals, those that were added before see only admitted requests.

        Args:
            app: The application.
            exempt: Exact paths such as ``/health``, or ``/docs/*`` for ``/docs`` and everything below it.

        Returns:
            The application to serve: the same object if it was protected in place.

        Raises:
            ValueError: If an exempt path has another form.
            TypeError: If one string is given instead of a list of paths.
            RuntimeError: If the application is already protected, or has started.
        """
        return self._installations.protect(app, exempt)

    async def __aenter__(self) -> Self:
        """Start: connect, and create the tables if they do not exist. Nested uses share one start.

        Raises:
            SetupError: If the database does not respond, Redis rejects the connection, or the tables require an
                upgrade, or FastAPI has dropped the dependency of a route. A Redis that does not respond is an outage,
                which begins with the start.
            RuntimeError: If it is started in another event loop, or this is not asyncio. Once it has stopped, any event
                loop may start it.
        """
        await self._lifecycle.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: write what is pending, close connections."""
        await self._lifecycle.exit()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Self]:
        """Start only what a script needs: ``async with auth.connect():``.

        The database is connected, and its tables are created if they do not exist. Redis is contacted only if there is
        a change to publish, so that keys can be read and revoked while it is unavailable. No background task runs, and
        no metrics or events leave the process. Added in 0.2.

        Raises:
            SetupError: If the database does not respond, or its tables require an upgrade.
        """
        async with self._lifecycle.connect():
            yield self

    def session_token(self, connection: HTTPConnection) -> str | None:
        """Return the session token that a request carries, unchecked, or None: for ``auth.sessions.revoke``.

        Raises:
            RuntimeError: If KeyAuth is not installed on the application, or the request is over.
        """
        return self._parts.request_handler.get_context(connection).credentials.session

    async def upgrade(self) -> list[str]:
        """Upgrade the tables to the newest revision, in one transaction. Run it before the app starts.

        Returns:
            The revisions that were applied, oldest first. Empty if the tables are up to date.

        Raises:
            SetupError: If the database does not respond or rejects the upgrade. The tables are then unchanged.
        """
        from fastapi_keyauth.store.upgrade import upgrade  # noqa: PLC0415  # Alembic: 60 ms that no start needs

        return await upgrade(self.settings.database_url)
