"""The ASGI edge: opens a visit for each request, completes the headers of each response, answers preflights, protects.

Pure ASGI: streamed responses and WebSockets pass through untouched.
"""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth.auth.credentials import Headers
from fastapi_keyauth.auth.request_context import Visit
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.request_handler import Edge, find_header

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


class Exemptions:
    """Paths that need no key: exact, or everything below with ``/*`` at the end (and the path before it).

    Attributes:
        are_none: whether there is no such path, so that none has to be looked at.
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
        self.are_none = not exact

    def covers(self, path: str) -> bool:
        """Whether the path is exempt. One that another server could read as another path never is."""
        if path in self._exact:
            return True
        if not path.startswith(self._below) or set(path) & set("\\%;"):
            return False
        return not path.endswith(("/.", "/..")) and not {".", "..", ""} & set(path.split("/")[1:-1])


@dataclass(slots=True)
class Guard:
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
        edge: what it shares with the dependencies.
        guard: which paths want a key.
    """

    def __init__(self, app: ASGIApp, edge: Edge, guard: Guard) -> None:
        self._app = app
        self._edge = edge
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        edge = self._edge
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        visit: Visit | None = scope.get(edge.scope_key)
        if visit is None:  # else another of ours, further out, completes the response
            if scope["type"] == "http" and scope["method"] == "OPTIONS" and await self._preflight(scope, receive, send):
                return
            visit = edge.open_visit(scope)
            send = _completing(send, edge, visit)
        exemptions = self._guard.exemptions
        if exemptions is not None and (exemptions.are_none or not exemptions.covers(path_in_app(scope))):
            visit.takes_key = True
            try:
                principal = await edge.authenticator.authenticate_key(visit)
            except KeyAuthError as error:
                await edge.refuse(error, visit, scope, receive, send)
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
        allowed = await self._edge.cors.preflight_headers(origin.decode("latin-1"), method, wanted)
        if allowed is None and _has_cors_middleware(scope.get("app")):
            return False
        response = Response(status_code=204)
        response.raw_headers += allowed or []
        response.raw_headers.append((b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"))
        await response(scope, receive, send)
        return True


def path_in_app(scope: Scope) -> str:
    """The path that routing will look at: without what the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _has_cors_middleware(app: Any) -> bool:
    layers = getattr(app, "user_middleware", ())
    return any(isinstance(layer.cls, type) and issubclass(layer.cls, CORSMiddleware) for layer in layers)


def _completing(send: Send, edge: Edge, visit: Visit) -> Send:
    """``send``, with our headers on the response's start."""

    def send_completed(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            headers = list(message.get("headers", ()))
            edge.complete(headers, visit)
            message = {**message, "headers": headers}
            if visit.origin is not None:
                return _send_cross_origin(message, send, edge, visit)
        return send(message)  # and no coroutine of our own around it, for every part of a stream

    return send_completed


async def _send_cross_origin(message: Message, send: Send, edge: Edge, visit: Visit) -> None:
    await edge.cors.add_headers(message["headers"], visit)
    await send(message)
