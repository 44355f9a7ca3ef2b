"""The ASGI edge: opens a visit for each request, completes the headers of each response, answers preflights, protects.

Pure ASGI: streamed responses and WebSockets pass through untouched.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth.addresses import AddressResolver
from fastapi_keyauth.authenticator import Authenticator, Visit
from fastapi_keyauth.cors import CorsRules, RawHeaders
from fastapi_keyauth.credentials import CredentialReader, Headers
from fastapi_keyauth.errors import KeyAuthError, TemporarilyUnavailable
from fastapi_keyauth.limiter.base import HOUR_S
from fastapi_keyauth.problems import Problems
from fastapi_keyauth.tokens import redact

logger = logging.getLogger("fastapi_keyauth")

WS_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
RateLimitHeaders = Literal["ietf", "legacy", "both", "none"]


class Exemptions:
    """Paths that need no key: exact, or everything below with ``/*`` at the end (and the path before it)."""

    def __init__(self, paths: Iterable[str]) -> None:
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

    def covers(self, path: str) -> bool:
        """Whether the path is exempt. One that another server could read as another path never is."""
        if path in self._exact:
            return True
        if not path.startswith(self._below):
            return False
        return (
            "\\" not in path
            and not any(part in (".", "..", "") for part in path.split("/")[1:-1])
            and (not path.endswith(("/.", "/..")))
        )


class Edge:
    """What the middleware and the dependencies of one KeyAuth share.

    Attributes:
        scope_key: the name under which a request's visit lies in its ASGI scope.
    """

    def __init__(
        self,
        scope_key: str,
        credentials: CredentialReader,
        addresses: AddressResolver,
        authenticator: Authenticator,
        cors: CorsRules,
        problems: Problems,
        rate_limit_headers: RateLimitHeaders,
    ) -> None:
        self.scope_key = scope_key
        self.authenticator = authenticator
        self.cors = cors
        self._problems = problems
        self._credentials = credentials
        self._addresses = addresses
        self._rate_limit_headers = rate_limit_headers

    def open_visit(self, scope: Scope) -> Visit:
        """A visit for this request, laid into its scope."""
        headers: Headers = scope["headers"]
        origin = find_header(headers, b"origin")
        visit = Visit(
            self._credentials.read(headers),
            self._addresses.resolve(scope.get("client"), headers),
            origin.decode("latin-1") if origin else None,
        )
        scope[self.scope_key] = visit
        return visit

    def find_visit(self, connection: HTTPConnection) -> Visit:
        """The visit of a request.

        Raises:
            RuntimeError: the application was not installed on.
        """
        visit: Visit | None = connection.scope.get(self.scope_key)
        if visit is None:
            raise RuntimeError("This app does not know its KeyAuth: call auth.install(app) once, where it is made.")
        return visit

    def respond(self, error: KeyAuthError, visit: Visit, scope: Scope) -> Response:
        """The response to an error; why goes to the log, what was sent does not."""
        facts = (
            type(error).__name__,
            getattr(error, "key_id", None),
            None if visit.address is None else visit.address.text,
            scope.get("method", "WEBSOCKET"),
            redact(scope["path"]),
        )
        if isinstance(error, TemporarilyUnavailable):
            logger.warning("unavailable: %s key=%s address=%s %s %r", *facts)
        else:
            logger.info("refused: %s key=%s address=%s %s %r", *facts)
        return self._problems.response(error, visit)

    async def complete(self, headers: RawHeaders, visit: Visit) -> None:
        """Add rate-limit and CORS headers to a response."""
        self._add_rate_limit(headers, visit)
        await self.cors.add_headers(headers, visit)

    def _add_rate_limit(self, headers: RawHeaders, visit: Visit) -> None:
        key, decision, mode = visit.key, visit.decision, self._rate_limit_headers
        if decision is None or key is None or key.hourly_limit is None or decision.remaining is None or mode == "none":
            return
        limit, remaining = key.hourly_limit, decision.remaining
        if mode != "legacy":
            headers.append((b"ratelimit-policy", b'"hour";q=%d;w=%d' % (limit, HOUR_S)))
            headers.append((b"ratelimit", b'"hour";r=%d;t=%d' % (remaining, decision.retry_after_s)))
        if mode != "ietf":
            headers.append((b"x-ratelimit-limit", b"%d" % limit))
            headers.append((b"x-ratelimit-remaining", b"%d" % remaining))
            headers.append((b"x-ratelimit-reset", b"%d" % decision.reset_at_s))


class KeyAuthMiddleware:
    """See the module.

    Args:
        app: the application inside.
        edge: what it shares with the dependencies.
        exemptions: called for each request; gives the paths that need no key, or None where only dependencies protect.
    """

    def __init__(self, app: ASGIApp, edge: Edge, exemptions: Callable[[], Exemptions | None]) -> None:
        self._app = app
        self._edge = edge
        self._exemptions = exemptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        edge = self._edge
        if scope["type"] not in ("http", "websocket") or edge.scope_key in scope:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and await self._preflight(scope, receive, send):
            return
        visit = edge.open_visit(scope)
        is_complete = False

        async def send_completed(message: Message) -> None:
            nonlocal is_complete
            if message["type"] in ("http.response.start", "websocket.http.response.start") and not is_complete:
                is_complete = True
                message["headers"] = headers = list(message.get("headers", ()))
                await edge.complete(headers, visit)
            await send(message)

        exemptions = self._exemptions()
        if exemptions is not None and not exemptions.covers(_path(scope)):
            visit.takes_key = True
            try:
                principal = await edge.authenticator.authenticate_key(visit)
            except KeyAuthError as error:
                await refuse(edge.respond(error, visit, scope), scope, receive, send_completed)
                return
            scope.setdefault("state", {})["key"] = principal
        await self._app(scope, receive, send_completed)

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


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal; to a WebSocket as an HTTP response where the server can, else by closing it."""
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await receive()  # websocket.connect; nothing may be sent before it
        await send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": ""})


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """A header's value; several are joined, so that a doubled one equals none that is allowed. None where absent."""
    values = [value for present, value in headers if present == name]
    return b", ".join(values) if values else None


def _path(scope: Scope) -> str:
    """The path that routing will look at: without what the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _has_cors_middleware(app: Any) -> bool:
    layers = getattr(app, "user_middleware", ())
    return any(isinstance(layer.cls, type) and issubclass(layer.cls, CORSMiddleware) for layer in layers)
