"""The ASGI middleware: opens the context of each request, completes response headers, answers preflights.

Pure ASGI: streamed responses and WebSockets pass through unchanged. It is the outermost of an application's
middlewares, whenever they were added; see ``keep_outermost``.
"""

from asyncio import current_task
from threading import get_ident
from time import monotonic

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth.http.host_cors import allows_origin, answers_preflights
from fastapi_keyauth.http.in_flight import InFlight
from fastapi_keyauth.http.open_request import OpenRequest
from fastapi_keyauth.http.preflight import Preflight, read_preflight
from fastapi_keyauth.http.request_handler import RequestHandler


class KeyAuthMiddleware:
    """The outermost middleware of an application; see the module.

    Args:
        app: The application inside.
        handler: The parts that are shared with the dependencies.
        in_flight: Ends requests whose credentials lost their rights. None: nothing does.
    """

    def __init__(self, app: ASGIApp, handler: RequestHandler, in_flight: InFlight | None) -> None:
        self._app = app
        self._handler = handler
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        handler = self._handler
        if scope["type"] not in ("http", "websocket") or handler.scope_key in scope:
            # In the second case another of these middlewares, further out, completes the response.
            await self._app(scope, receive, send)
            return
        context = handler.open_context(scope)
        origin = context.origin
        if origin is not None and (preflight := read_preflight(scope)) is not None:
            ours = await handler.cors.answer_preflight(preflight)
            if ours is not None:
                await self._answer(ours, preflight, scope, receive, send)
                return
            # A preflight that is not ours to answer stays the application's: the 405 of a route that takes a key must
            # not say whether a key lists the origin.
            origin = None
        in_flight = self._in_flight
        task = None if in_flight is None else current_task(in_flight.loop)
        if in_flight is None or task is None or get_ident() != in_flight.thread_id:
            # Nothing can end it. In the last two cases another event loop is running, maybe in a thread beside that
            # one, and then the open requests must not change while that one reads them.
            context.is_loop_unknown = True
            request = OpenRequest(self._app, handler, context, scope, receive, send, origin)
            await self._app(scope, receive, request.send)
            return
        request = OpenRequest(self._app, handler, context, scope, receive, send, origin, monotonic(), task)
        in_flight.open[request] = None
        if not in_flight.is_watching:
            in_flight.watch()
        try:
            await self._app(scope, receive, request.send)
        except BaseException as error:
            if request.ending is None or not await request.absorb(error):
                raise
        else:
            if request.ending is not None:
                await request.absorb(None)
            handler.close_context(scope)
        finally:
            del in_flight.open[request]

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


def keep_outermost(app: Starlette, handler: RequestHandler, in_flight: InFlight | None) -> None:
    """Add the middleware to an application, outside of all others, including those that are added later.

    Its position must not depend on where ``install`` is called: what it answers, ``CORSMiddleware`` must not complete.

    Raises:
        RuntimeError: If the application has started.
    """
    app.add_middleware(KeyAuthMiddleware, handler=handler, in_flight=in_flight)
    ours = app.user_middleware[0]
    build = app.build_middleware_stack

    def build_with_ours_first() -> ASGIApp:
        app.user_middleware.sort(key=lambda layer: layer is not ours)  # a stable sort
        return build()

    # Starlette calls it once, for the first request.
    app.build_middleware_stack = build_with_ours_first  # type: ignore[method-assign]
