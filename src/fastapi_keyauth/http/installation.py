"""The applications that a KeyAuth is installed on."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp

from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.annotation_check import check_annotations
from fastapi_keyauth.http.in_flight import InFlight
from fastapi_keyauth.http.lifespan import WithLifespan
from fastapi_keyauth.http.middleware import KeyAuthMiddleware, keep_outermost
from fastapi_keyauth.http.openapi import SchemaCompleter
from fastapi_keyauth.http.protect import Exemptions, ProtectedPaths, ProtectMiddleware
from fastapi_keyauth.http.request_handler import RequestHandler, handle_error
from fastapi_keyauth.http.scope_check import find_unknown_scopes
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.settings.settings import KeyAuthSettings

App = TypeVar("App", bound=ASGIApp)
_INSTALLED = "_fastapi_keyauth"
"""Attribute of an application's state: the KeyAuth objects that are installed on it."""


class Installations:
    """Joins applications to one KeyAuth. The methods of ``KeyAuth`` with the same names describe its methods.

    Args:
        auth: The KeyAuth: a context that runs beside each application's own lifespan.
        handler: Its request handler.
        settings: Its settings.
        in_flight: Ends its requests whose credentials lost their rights. None: nothing does.
    """

    def __init__(
        self,
        auth: AbstractAsyncContextManager[Any],
        handler: RequestHandler,
        settings: KeyAuthSettings,
        in_flight: InFlight | None,
    ) -> None:
        self._auth = auth
        self._handler = handler
        self._in_flight = in_flight
        self._scopes = settings.scopes
        self._schema = SchemaCompleter(settings)
        self._protected: dict[Any, ProtectedPaths] = {}

    def __contains__(self, app: ASGIApp) -> bool:
        return app in self._protected

    def install(self, app: Starlette) -> None:
        """Join an application."""
        if app in self._protected:
            return
        keep_outermost(app, self._handler, self._in_flight)
        self._protected[app] = ProtectedPaths()
        setattr(app.state, _INSTALLED, (*installed_on(app), self._auth))
        self._handler.installed_on.add(app)
        self._extend_lifespan(app)
        if KeyAuthError not in app.exception_handlers:  # the application's own stays, and so does another KeyAuth's
            # Starlette's annotation demands a handler of Exception; this one is only ever given its own kind.
            app.add_exception_handler(KeyAuthError, handle_error)  # type: ignore[arg-type]
        self._complete_schema(app)

    def protect(self, app: App, exempt: Iterable[str]) -> App:
        """Require an API key for everything but the exempt paths."""
        exemptions = Exemptions(exempt)
        handler = self._handler
        if not isinstance(app, Starlette):
            inner = KeyAuthMiddleware(ProtectMiddleware(app, handler, exemptions), handler, self._in_flight)
            return WithLifespan(self._auth, inner)  # type: ignore[return-value]  # an ASGI app for an ASGI app
        self.install(app)
        protected = self._protected[app]
        if protected.exemptions is not None:
            raise RuntimeError("auth.protect was already called with this app. Pass all exempt paths in one call.")
        app.add_middleware(ProtectMiddleware, handler=handler, exemptions=exemptions)
        protected.exemptions = exemptions
        return app

    def check(self) -> list[CheckWarning]:
        """Check the routes of the applications.

        Raises:
            SetupError: If FastAPI has dropped the dependency of a route.
        """
        check_annotations(self._protected)
        return find_unknown_scopes(self._protected, self._handler, self._scopes)

    def _extend_lifespan(self, app: Starlette) -> None:
        inner_lifespan = app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(started: Any) -> AsyncIterator[Any]:
            self._complete_schema(app)  # again: app.openapi may have been replaced since
            async with self._auth, inner_lifespan(started) as state:
                yield state

        app.router.lifespan_context = lifespan

    def _complete_schema(self, app: Starlette) -> None:
        if isinstance(app, FastAPI):
            self._schema.attach(app, self._protected[app].require_key)


def installed_on(app: object) -> tuple[Any, ...]:
    """Return the KeyAuth objects that are installed on an application, in the order of their ``install``."""
    return getattr(app.state, _INSTALLED, ()) if isinstance(app, Starlette) else ()
