"""The ASGI middleware: opens the context of each request, completes response headers, answers preflights, protects.

Pure ASGI: streamed responses and WebSockets pass through untouched.
"""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth.auth.credentials import Headers
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.cors import add_vary
from fastapi_keyauth.http.headers import find_header
from fastapi_keyauth.http.paths import path_in_app
from fastapi_keyauth.http.rate_limit_headers import add_rate_limit_headers
from fastapi_keyauth.http.request_handler import RequestHandler

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


class Exemptions:
    """Paths that need no key: exact, or everything below with ``/*`` at the end (and the path before it).

    Attributes:
        is_empty: whether there is no such path, so that none has to be looked at.
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
        """Whether the path is exempt. One that another server could read as another path never is."""
        if path in self._exact:
            return True
        if not path.startswith(self._below) or set(path) & set("\\%;"):
            return False
        return not path.endswith(("/.", "/..")) and not {".", "..", ""} & set(path.split("/")[1:-1])


@dataclass(slots=True)
class ProtectedPaths:
    """What the middleware wants a key for. It may change while the application is being put together.

    Attributes:
        exemptions: the paths that need no key; None where only dependencies protect.
    """

    exemptions: Exemptions | None = None

    def wants_key(self, path: str) -> bool:
        """Whether the middleware wants a key for this path."""
        return self.exemptions is not None and not self.exemptions.covers(path)


class KeyAuthMiddleware:
    """See the module.

    Args:
        app: the application inside.
        handler: what it shares with the dependencies.
        guard: which paths want a key.
    """

    def __init__(self, app: ASGIApp, handler: RequestHandler, guard: ProtectedPaths) -> None:
        self._app = app
        self._request_handler = handler
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        handler = self._request_handler
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        context: AuthContext | None = scope.get(handler.scope_key)
        if context is None:  # else another of ours, further out, completes the response
            if scope["type"] == "http" and scope["method"] == "OPTIONS" and await self._preflight(scope, receive, send):
                return
            context = handler.open_context(scope)
            send = _completing(send, handler, context)
        exemptions = self._guard.exemptions
        if exemptions is not None and (exemptions.is_empty or not exemptions.covers(path_in_app(scope))):
            context.takes_key = True
            try:
                principal = await handler.authenticator.authenticate_key(context)
            except KeyAuthError as error:
                await handler.refuse(error, context, scope, receive, send)
                return
            scope.setdefault("state", {})["key"] = principal
        await self._app(scope, receive, send)

    async def _preflight(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a preflight. False where there is none, or where the application's own CORS rules must speak."""
        headers: Headers = scope["headers"]
        origin = find_header(headers, b"origin")
        method = find_header(headers, b"access-control-request-method")
        if origin is None or method is None:
            return False
        wanted = find_header(headers, b"access-control-request-headers")
        allowed = await self._request_handler.cors.preflight_headers(origin.decode("latin-1"), method, wanted)
        if allowed is None and _has_cors_middleware(scope.get("app")):
            return False
        response = Response(status_code=204)
        response.raw_headers += allowed or []
        response.raw_headers.append((b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"))
        await response(scope, receive, send)
        return True


def _has_cors_middleware(app: Any) -> bool:
    layers = getattr(app, "user_middleware", ())
    return any(isinstance(layer.cls, type) and issubclass(layer.cls, CORSMiddleware) for layer in layers)


def _completing(send: Send, handler: RequestHandler, context: AuthContext) -> Send:
    """``send``, with our headers on the response's start."""

    def send_completed(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            headers = list(message.get("headers", ()))
            add_rate_limit_headers(headers, context, handler.rate_limit_headers)
            add_vary(headers)
            message = {**message, "headers": headers}
            if context.origin is not None:
                return _send_cross_origin(message, send, handler, context)
        return send(message)  # and no coroutine of our own around it, for every part of a stream

    return send_completed


async def _send_cross_origin(message: Message, send: Send, handler: RequestHandler, context: AuthContext) -> None:
    await handler.cors.add_headers(message["headers"], context)
    await send(message)
