"""The middleware of ``auth.protect``: an API key is required before routing, except for exempt paths."""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_keyauth.auth.charges import raise_cost
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.host_cors import has_cors_middleware, with_host_cors
from fastapi_keyauth.http.paths import path_in_app
from fastapi_keyauth.http.preflight import read_preflight
from fastapi_keyauth.http.request_handler import RequestHandler


class Exemptions:
    """Paths that require no key: exact paths, or with ``/*`` at the end a path and everything below it.

    Attributes:
        is_empty: Whether there are no exempt paths, so that no path has to be compared.

    Raises:
        ValueError: If a path has another form.
        TypeError: If a single string is given instead of a list.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        if isinstance(paths, str):
            raise TypeError("exempt is a list of paths")
        exact, below = set(), []
        for path in paths:
            if not path.startswith("/") or "*" in path.removesuffix("/*"):
                raise ValueError(f"an exempt path starts with '/' and has '*' only as '/*' at its end: {path!r}")
            if path.endswith("/*"):
                below.append(path[:-1])
                exact.add(path[:-2])
            else:
                exact.add(path)
        self._exact = frozenset(exact)
        self._below = tuple(below)
        self.is_empty = not exact

    def covers(self, path: str) -> bool:
        """Return whether a path is exempt. A path that another server could read as another one never is."""
        if path in self._exact:
            return True
        if not path.startswith(self._below) or set(path) & set("\\%;"):
            return False
        return not path.endswith(("/.", "/..")) and not {".", "..", ""} & set(path.split("/")[1:-1])


@dataclass(slots=True)
class ProtectedPaths:
    """The paths of one application that require a key, whatever their routes say.

    Attributes:
        exemptions: The paths that require no key. None if ``protect`` was not called.
    """

    exemptions: Exemptions | None = None

    def require_key(self, path: str) -> bool:
        """Return whether the middleware requires a key for this path."""
        return self.exemptions is not None and not self.exemptions.covers(path)


class ProtectMiddleware:
    """ASGI middleware that requires an API key. ``KeyAuthMiddleware`` must be around it.

    Args:
        app: The application inside.
        handler: The parts that are shared with the dependencies.
        exemptions: The paths that require no key.
    """

    def __init__(self, app: ASGIApp, handler: RequestHandler, exemptions: Exemptions) -> None:
        self._app = app
        self._handler = handler
        self._exempt = None if exemptions.is_empty else exemptions

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run as an ASGI application: return that of the application inside, or a refusal."""
        exempt = self._exempt
        if (
            scope["type"] not in ("http", "websocket")
            or (exempt is not None and exempt.covers(path_in_app(scope)))
            or (scope.get("method") == "OPTIONS" and _is_answered_by_host(scope))
        ):
            return self._app(scope, receive, send)
        handler = self._handler
        context = handler.begin(scope)
        context.takes_key = True
        if handler.costs.has_any:
            # Now, not after routing: what a limit refuses must be charged nothing.
            cost = handler.costs.foresee(scope, ONE_REQUEST)
            if cost != ONE_REQUEST:
                raise_cost(context, cost)
        try:
            outcome = handler.authenticator.start(context)
        except KeyAuthError as error:
            return self._refuse(error, context, scope, receive, send)
        if isinstance(outcome, KeyPrincipal):
            scope.setdefault("state", {})["key"] = outcome
            return self._app(scope, receive, send)
        return self._complete(outcome, context, scope, receive, send)

    async def _complete(
        self, checks: Awaitable[KeyPrincipal], context: AuthContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            scope.setdefault("state", {})["key"] = await checks
        except KeyAuthError as error:
            await self._refuse(error, context, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuse(
        self, error: KeyAuthError, context: AuthContext, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        refusal = partial(self._handler.refuse, error, context)
        return with_host_cors(self._app, refusal)(scope, receive, send)


def _is_answered_by_host(scope: Scope) -> bool:
    """Return whether a request is a preflight that ``CORSMiddleware`` answers itself, so that it reaches no route."""
    return read_preflight(scope) is not None and has_cors_middleware(scope.get("app"))
