"""The ASGI middleware: opens the context of each request, completes response headers, answers preflights.

Pure ASGI: streamed responses and WebSockets pass through unchanged. It is the outermost of an application's
middlewares, whenever they were added; see ``keep_outermost``.
"""

from collections.abc import Awaitable

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.http.host_cors import allows_origin, answers_preflights, is_inside_credentials
from fastapi_keyauth.http.preflight import Preflight, read_preflight
from fastapi_keyauth.http.rate_limit_headers import add_rate_limit_headers
from fastapi_keyauth.http.request_handler import RequestHandler

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


class KeyAuthMiddleware:
    """The outermost middleware of an application; see the module.

    Args:
        app: The application inside.
        handler: The parts that are shared with the dependencies.
    """

    def __init__(self, app: ASGIApp, handler: RequestHandler) -> None:
        self._app = app
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        handler = self._handler
        if scope["type"] not in ("http", "websocket") or handler.scope_key in scope:
            # In the second case another of these middlewares, further out, completes the response.
            await self._app(scope, receive, send)
            return
        context = handler.open_context(scope)
        preflight = read_preflight(scope)
        ours = None if preflight is None else await handler.cors.answer_preflight(preflight)
        if preflight is not None and ours is not None:
            await self._answer(ours, preflight, scope, receive, send)
            return
        # A preflight that is not ours to answer stays the application's: the 405 of a route that takes a key must not
        # say whether a key lists the origin.
        origin = context.origin if preflight is None else None
        await self._app(scope, receive, _completing(receive, send, handler, context, scope, origin))

    async def _answer(self, ours: Response, preflight: Preflight, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight: as the application does if its own rules allow the origin, otherwise with ours."""
        if not answers_preflights(scope.get("app"), scope):
            await ours(scope, receive, send)
            return
        is_theirs = False

        async def send_if_theirs(message: Message) -> None:
            nonlocal is_theirs
            if message["type"] == "http.response.start":
                is_theirs = allows_origin(message.get("headers", ()), preflight.origin)
            if is_theirs:
                await send(message)

        await self._app(scope, receive, send_if_theirs)
        if not is_theirs:
            await ours(scope, receive, send)


def keep_outermost(app: Starlette, handler: RequestHandler) -> None:
    """Add the middleware to an application, outside of all others, including those that are added later.

    Its position must not depend on where ``install`` is called: what it answers, ``CORSMiddleware`` must not complete.

    Raises:
        RuntimeError: If the application has started.
    """
    app.add_middleware(KeyAuthMiddleware, handler=handler)
    ours = app.user_middleware[0]
    build = app.build_middleware_stack

    def build_with_ours_first() -> ASGIApp:
        app.user_middleware.sort(key=lambda layer: layer is not ours)  # a stable sort
        return build()

    # Starlette calls it once, for the first request.
    app.build_middleware_stack = build_with_ours_first  # type: ignore[method-assign]


def _completing(
    receive: Receive, send: Send, handler: RequestHandler, context: AuthContext, scope: Scope, origin: str | None
) -> Send:
    """Return ``send`` with our headers added to the start of the response.

    Args:
        receive: Receives from the client.
        send: Sends to the client.
        handler: The parts that are shared with the dependencies.
        context: The request's context.
        scope: The request's ASGI scope.
        origin: The origin that may be allowed to read the response. None: no CORS headers are added.
    """

    def send_completed(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            headers = list(message.get("headers", ()))
            add_rate_limit_headers(headers, context, handler.rate_limit_headers)
            message = {**message, "headers": headers}
            if origin is not None and handler.takes_key(context, scope):
                return _send_cross_origin(message, origin, context, receive, send, handler)
        return send(message)  # without a coroutine of our own around it, for every part of a stream

    return send_completed


async def _send_cross_origin(
    message: Message, origin: str, context: AuthContext, receive: Receive, send: Send, handler: RequestHandler
) -> None:
    if not is_inside_credentials(receive, send):
        message["headers"] = await handler.cors.add_headers(message["headers"], origin, context.key)
    await send(message)
