"""KeyAuth: the one object that users build. Wires the parts, starts and stops them."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.blocked_addresses import Blocks
from fastapi_keyauth.auth.credentials import CredentialReader
from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.key_cache import KeyCache
from fastapi_keyauth.auth.misplaced_keys import MisplacedKeys
from fastapi_keyauth.auth.reservations import Reservation, Reservations
from fastapi_keyauth.auth.sessions import SessionGate, SessionResolver, Sessions
from fastapi_keyauth.auth.verifier import Verifier
from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.concurrency.periodic import PeriodicTasks
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.limits import REQUESTS, parse_cost
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.domain.tokens import TokenParser
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http import dependencies
from fastapi_keyauth.http.annotation_check import check_annotations
from fastapi_keyauth.http.cors import CorsRules
from fastapi_keyauth.http.dashboard.options import DashboardOptions
from fastapi_keyauth.http.dashboard.router import build_dashboard_router
from fastapi_keyauth.http.lifespan import WithLifespan
from fastapi_keyauth.http.middleware import KeyAuthMiddleware, keep_outermost
from fastapi_keyauth.http.openapi import SchemaCompleter
from fastapi_keyauth.http.problem_details import ProblemRenderer
from fastapi_keyauth.http.protect import Exemptions, ProtectedPaths, ProtectMiddleware
from fastapi_keyauth.http.proxy_check import ProxyHeaderCheck
from fastapi_keyauth.http.request_handler import RequestHandler, handle_error
from fastapi_keyauth.http.routers.callers import Callers, OwnersOf
from fastapi_keyauth.http.routers.keys import build_keys_router
from fastapi_keyauth.http.routers.leaks import build_leaks_router
from fastapi_keyauth.http.routers.signing_keys import FindKeys, fetch_github_keys
from fastapi_keyauth.http.scope_check import find_unknown_scopes
from fastapi_keyauth.keys.authority import TRUSTED
from fastapi_keyauth.keys.importer import Importer
from fastapi_keyauth.keys.leaks import Leaks
from fastapi_keyauth.keys.management import KeyManagement
from fastapi_keyauth.keys.outbox import POLL_INTERVAL_S, Outbox
from fastapi_keyauth.keys.owners import Owners
from fastapi_keyauth.keys.queries import KeyQueries
from fastapi_keyauth.keys.retention import Pruner
from fastapi_keyauth.keys.service import Keys
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.limiter.factory import build_limiter
from fastapi_keyauth.limiter.traced import TracedLimiter
from fastapi_keyauth.settings.checks import run_checks
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import Database, KeyStore, OwnerStore, PruneStore, SessionStore, UsageStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder
from fastapi_keyauth.telemetry.event_hook import EventDispatcher, OnEvent
from fastapi_keyauth.telemetry.observer import Observer
from fastapi_keyauth.telemetry.providers import Telemetry, build_metrics

App = TypeVar("App", bound=ASGIApp)
Clock = Callable[[], float]
"""Seconds since 1970-01-01T00:00Z."""
_INSTALLED = "_fastapi_keyauth"
"""Attribute of an application's state: the KeyAuth objects that are installed on it."""


class KeyAuth:
    """API-key authentication for an application.

    Build one, call ``install``, and use its dependencies. Nothing is opened before the application starts.

    Args:
        settings: where left out, they come from ``KEYAUTH_*`` and ``.env``.
        session_resolver: ``async (token, connection) -> SessionPrincipal | None`` in place of the built-in sessions.
        owners_of: ``async (session) -> {owner_id: permissions}``: the owners that a session may act for on the
            management routes, each with ``keys:read``, ``keys:write`` or both. It is asked on every such request.
            Default: a session acts for its own user id. Added in 0.2.
        dashboard: how the key page fits the application; see ``DashboardOptions``.
        clock: seconds since 1970, for tests; it then rules on Redis, too.
        on_event: called with an ``AuthEvent`` for what happens to keys, addresses, Redis and the database: a
            function, which is called in a thread, or a coroutine function. Never called by a request itself.
        telemetry: True: metrics and spans go to OpenTelemetry's global providers, if it is installed and they are set.
            A ``Telemetry``: to those. False: nowhere.

    Attributes:
        settings: the settings.
        keys: make and change keys from code; see ``Keys``.
        owners: limit, suspend and erase the owners of keys; see ``Owners``. Added in 0.2.
        sessions: start and end the built-in sessions; see ``Sessions``.
        leaks: report tokens that were found where they should not be; see ``Leaks``.
        blocks: see and lift the blocks of addresses; see ``Blocks``.
        require_key: dependency -> ``KeyPrincipal``.
        require_session: dependency -> ``SessionPrincipal``; no key wanted.
        require_key_and_session: dependency -> ``SessionPrincipal`` whose ``key`` is the key.
        require_key_or_session: Dependency -> ``KeyPrincipal`` or ``SessionPrincipal``. Added in 0.2.
        optional_key: dependency -> ``KeyPrincipal`` or None.

    Raises:
        SetupError: a setting cannot be right.
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
        self._dashboard = DashboardOptions() if dashboard is None else dashboard
        self._clock = clock
        self._metrics = metrics = build_metrics(settings.key_prefix, telemetry)
        self._hook = None if on_event is None else EventDispatcher(on_event, metrics.counters)
        self._observer = Observer(metrics, self._hook, self._now)
        self._event_loop = event_loop = EventLoopBinding()
        self._database = Database(settings.database_url, observer=self._observer, event_loop=event_loop)
        self._hasher = Hasher(settings, metrics, event_loop)
        self._limiter = build_limiter(settings, clock, self._observer)
        store = KeyStore(self._database, settings, self._observer)
        usage_store = UsageStore(self._database, settings.key_prefix)
        self._usage = UsageRecorder(usage_store, time.time if clock is None else clock)
        self._pruner = Pruner(PruneStore(self._database), self._now)
        self._outbox = Outbox(self._limiter, store, settings.redis_url is not None, self._now)
        turns = Turns(store.tasks)
        management = KeyManagement(settings, store, self._hasher, self._outbox, turns, self._now)
        queries = KeyQueries(store, usage_store, self._usage, turns, self._now)
        self.keys = Keys(management, queries, Importer(settings, store.imports, self._now), TRUSTED)
        self.owners = Owners(
            settings,
            OwnerStore(self._database, settings, self._observer),
            self._outbox,
            self._limiter,
            self._now,
            TRUSTED,
        )
        self.sessions = Sessions(SessionStore(self._database, settings.key_prefix), settings.session_ttl_s, self._now)
        parser = TokenParser(settings.key_prefix)
        self.leaks = Leaks(parser, store, self._hasher, management.record_leak, self._now)
        monotonic = time.monotonic if clock is None else clock
        key_cache = KeyCache(settings.cache_size, self._now, monotonic)
        self._verifier = Verifier.of(settings, store, self._hasher, key_cache, metrics, monotonic)
        store.lineage.on_break = key_cache.clear
        self._database.on_recovery = key_cache.distrust_rows
        self._check_lineage = store.lineage.check
        session_gate = SessionGate(session_resolver or self.sessions.resolve, self._now)
        self._authenticator = authenticator = Authenticator(
            verifier=self._verifier,
            limiter=self._limiter,
            sessions=session_gate,
            usage=self._usage,
            now=self._now,
            block_spares_valid_keys=settings.block_spares_valid_keys,
            counters=metrics.counters,
        )
        self._reservations = Reservations(authenticator, store, settings.units, settings.reservation_ttl_s, self._now)
        addresses = AddressResolver(settings.trusted_proxies, settings.ipv6_prefix_length)
        self.blocks = Blocks(self._limiter, addresses, event_loop)
        self._request_handler = RequestHandler(
            scope_key=f"fastapi_keyauth.{secrets.token_hex(4)}",
            credentials=CredentialReader.of(settings),
            misplaced_keys=MisplacedKeys(settings),
            addresses=addresses,
            authenticator=authenticator,
            cors=CorsRules(settings, store, self._now, monotonic),
            problems=ProblemRenderer(settings),
            rate_limit_headers=settings.rate_limit_headers,
            observer=self._observer,
            peers=ProxyHeaderCheck(is_behind_proxies=bool(settings.trusted_proxies)),
            event_loop=event_loop,
        )
        parts = (self._request_handler, settings.header_name)
        self.require_key = dependencies.RequireKey(*parts)
        self.require_session = dependencies.RequireSession(*parts)
        self.require_key_and_session = dependencies.RequireKeyAndSession(*parts)
        self.require_key_or_session = dependencies.RequireKeyOrSession(*parts)
        self.optional_key = dependencies.OptionalKey(*parts)
        manager = dependencies.RequireManager(*parts)
        self._request_handler.key_requirements = frozenset(
            (self.require_key, self.require_key_and_session, self.require_key_or_session, self.optional_key, manager)
        )
        get_context = self._request_handler.get_context
        callers = Callers(
            authenticator,
            session_gate,
            session_resolver is None,
            owners_of,
            get_context,
            settings.default_hourly_limit,
            store.default_limits,
        )
        requirements = (self.require_key, self.require_session, manager)
        self._router_parts = (management, queries, self.owners, settings, *requirements, callers)
        self._schema = SchemaCompleter(settings)
        self._protected: dict[Any, ProtectedPaths] = {}
        self._users = 0
        tasks = (self._check_lineage, self._outbox.drain, self._usage.flush, self._pruner.prune_when_due)
        self._housekeeping = PeriodicTasks(POLL_INTERVAL_S, *tasks)

    def __repr__(self) -> str:
        return f"KeyAuth({self.settings!r})"

    @cached_property
    def keys_router(self) -> APIRouter:
        """The management routes; mount them with ``app.include_router(auth.keys_router, prefix="/api-keys")``."""
        return build_keys_router(*self._router_parts)

    @cached_property
    def dashboard_router(self) -> APIRouter:
        """The key page; mount it with ``app.include_router(auth.dashboard_router, prefix="/settings/api-keys")``."""
        return build_dashboard_router(self._dashboard, *self._router_parts)

    def build_leaks_router(self, *, find_keys: FindKeys = fetch_github_keys, revoke: bool = True) -> APIRouter:
        """Build a router with one route, ``POST ""``: the webhook for secret scanners, in GitHub's format.

        It checks the signature over the raw body and reports each token to ``auth.leaks``. Mount it where the scanner
        was told to send its reports. It takes no API key: the signature is the credential.

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
        session: bool = False,
        optional: bool = False,
        cost: int | Mapping[str, int] = 1,
    ) -> Any:
        """Return a dependency on an API key, with a cost and scopes. Added in 0.2.

        ``require_key``, ``require_key_and_session`` and ``optional_key`` are short forms of it. Several requirements on
        one request charge the highest cost of each unit once.

        Args:
            scopes: What the key, and the session if one is required, must hold.
            session: True: also require a session. The dependency then returns a ``SessionPrincipal``.
            optional: True: return None if no token was sent.
            cost: Units of ``requests``, or unit to number, each from 0 to 1,000,000,000.

        Returns:
            The dependency, which returns a ``KeyPrincipal`` unless said otherwise.

        Raises:
            ValueError: If a unit is not declared in the setting ``units``, a number is out of bounds, or a requirement
                with a session is to be optional.
        """
        if session and optional:
            raise ValueError("a requirement with a session cannot be optional")
        kind: type[Any] = dependencies.RequireKey
        if session or optional:
            kind = dependencies.RequireKeyAndSession if session else dependencies.OptionalKey
        names = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        numbers = {REQUESTS: 1, **cost} if isinstance(cost, Mapping) else cost
        parsed = parse_cost(numbers, self.settings.units)
        return kind(self._request_handler, self.settings.header_name, names, parsed)

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
        return self._reservations.reserve(key, units)

    def install(self, app: Starlette) -> None:
        """Join an application: its lifespan (beside its own), its error handlers, its responses and its OpenAPI.

        Call it once on every FastAPI app whose routes use the dependencies, also on those that are mounted. A second
        call does nothing. Its position among ``app.add_middleware`` calls does not matter: what it does to responses is
        done outside of all middlewares of the application. A handler of the application's own for ``KeyAuthError`` or
        one of its subclasses, registered before or after, answers in place of ours.

        Raises:
            RuntimeError: If the application has started.
        """
        if app in self._protected:
            return
        keep_outermost(app, self._request_handler)
        protected = self._protected[app] = ProtectedPaths()
        setattr(app.state, _INSTALLED, (*self.installed_on(app), self))
        self._request_handler.installed_on.add(app)
        inner_lifespan = app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(started: Any) -> AsyncIterator[Any]:
            if isinstance(app, FastAPI):
                self._schema.attach(app, protected.require_key)  # again: app.openapi may have been replaced since
            async with self, inner_lifespan(started) as state:
                yield state

        app.router.lifespan_context = lifespan
        if KeyAuthError not in app.exception_handlers:  # the application's own stays, and so does another KeyAuth's
            # Starlette's annotation demands a handler of Exception; this one is only ever given its own kind.
            app.add_exception_handler(KeyAuthError, handle_error)  # type: ignore[arg-type]
        if isinstance(app, FastAPI):
            self._schema.attach(app, protected.require_key)

    def is_installed_on(self, app: ASGIApp) -> bool:
        """Return whether ``install`` or ``protect`` was called with this application."""
        return app in self._protected

    @staticmethod
    def installed_on(app: object) -> "tuple[KeyAuth, ...]":
        """Return the KeyAuth objects that are installed on an application, in the order of their ``install``.

        Added in 0.2.
        """
        return getattr(app.state, _INSTALLED, ()) if isinstance(app, Starlette) else ()

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
        exemptions = Exemptions(exempt)
        handler = self._request_handler
        if not isinstance(app, Starlette):
            inner = KeyAuthMiddleware(ProtectMiddleware(app, handler, exemptions), handler)
            return WithLifespan(self, inner)  # type: ignore[return-value]  # an ASGI app for an ASGI app
        self.install(app)
        protected = self._protected[app]
        if protected.exemptions is not None:
            raise RuntimeError("auth.protect was already called with this app. Pass all exempt paths in one call.")
        app.add_middleware(ProtectMiddleware, handler=handler, exemptions=exemptions)
        protected.exemptions = exemptions
        return app

    async def __aenter__(self) -> Self:
        """Start: connect, and create the tables if they do not exist. Nested uses share one start.

        Raises:
            SetupError: If the database does not respond, Redis rejects the connection, or the tables require an
                upgrade, or FastAPI has dropped the dependency of a route. A Redis that does not respond is an outage,
                which begins with the start.
            RuntimeError: If it is started in another event loop, or this is not asyncio. Once it has stopped, any event
                loop may start it.
        """
        lock = self._event_loop.bind()
        try:
            async with lock:
                if self._users == 0:
                    await self._start()
                self._users += 1
        except BaseException:  # also if the start is cancelled
            self._event_loop.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: write what is pending, close connections."""
        lock = self._event_loop.bind()
        try:
            async with lock:
                self._users -= 1
                if self._users == 0:
                    await self._stop()
        finally:
            self._event_loop.release()  # of this call
            self._event_loop.release()  # of the start

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Self]:
        """Start only what a script needs: ``async with auth.connect():``.

        The database is connected, and its tables are created if there are none. Redis is contacted only if there is a
        change to publish, so that keys can be read and revoked while it is unavailable. No background task runs, and
        no metrics or events leave the process. Added in 0.2.

        Raises:
            SetupError: If the database does not respond, or its tables require an upgrade.
        """
        await self._database.start()
        try:
            self._hasher.start()
            self._usage.start()
            yield self
        finally:
            await self._limiter.close()
            await self._database.close()
            self._hasher.close()

    def session_token(self, connection: HTTPConnection) -> str | None:
        """The session token that a request carries, unchecked: what a log-out hands to ``auth.sessions.revoke``."""
        return self._request_handler.get_context(connection).credentials.session

    async def upgrade(self) -> list[str]:
        """Bring the tables to the newest revision, in one transaction: after an update, before the start.

        Returns:
            The revisions that were applied, oldest first; empty where there was nothing to do.

        Raises:
            SetupError: the database does not answer or refuses; nothing was changed.
        """
        from fastapi_keyauth.store.upgrade import upgrade  # noqa: PLC0415  # Alembic: 60 ms that no start needs

        return await upgrade(self.settings.database_url)

    async def _start(self) -> None:
        check_annotations(self._protected)
        requirements = (
            self.require_key,
            self.optional_key,
            self.require_key_and_session,
            self.require_key_or_session,
        )
        for warning in (
            *run_checks(self.settings),
            *find_unknown_scopes(self._protected, requirements, self.settings.scopes),
        ):
            warning.warn()
        await self._database.start()
        try:
            await self._check_lineage()
            await self._limiter.start()
            for warning in await self._limiter.run_checks():
                warning.warn()
        except BaseException:  # also where the start is cut off
            await self._limiter.close()
            await self._database.close()
            raise
        if self._hook is not None:
            self._hook.start()
        self._metrics.start()
        if self.settings.redis_url is not None and self._metrics.is_tracing:
            self._authenticator.limiter = TracedLimiter(self._limiter, self._metrics.span)
        self._hasher.start()
        self._usage.start()
        self._pruner.start()
        self._housekeeping.start()

    async def _stop(self) -> None:
        async with contextlib.AsyncExitStack() as closing:  # the last of these first, whatever becomes of the others
            closing.callback(self._hasher.close)
            closing.push_async_callback(self._database.close)
            closing.push_async_callback(self._limiter.close)
            if self._hook is not None:
                closing.push_async_callback(self._hook.close)  # it may look at keys
            closing.push_async_callback(self._verifier.close)
            closing.push_async_callback(self._usage.close)
            closing.push_async_callback(self._database.settle)  # there may be changes to publish
            closing.push_async_callback(self._housekeeping.close)

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._clock is None else datetime.fromtimestamp(self._clock(), UTC)
