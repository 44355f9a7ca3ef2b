"""Startup and shutdown around the lifespan of an ASGI application, if it has one."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WithLifespan:
    """An ASGI application with a context around its lifespan.

    Args:
        context: Entered at startup, exited at shutdown.
        app: The application. It need not support the lifespan protocol.
    """

    def __init__(self, context: AbstractAsyncContextManager[Any], app: ASGIApp) -> None:
        self._context = context
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        startup = await receive()
        try:
            await self._context.__aenter__()
        except BaseException as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        try:
            await self._live(scope, startup, receive, send)
        finally:
            await self._context.__aexit__(None, None, None)

    async def _live(self, scope: Scope, startup: Message, receive: Receive, send: Send) -> None:
        """Run the application's lifespan, or respond in its place. Its last message is sent after it has returned."""
        last_message: Message | None = None
        is_started = has_failed = False
        pending = [startup]

        async def receive_from_start() -> Message:
            return pending.pop() if pending else await receive()

        async def send_all_but_last(message: Message) -> None:
            nonlocal last_message, is_started, has_failed
            is_started |= message["type"] == "lifespan.startup.complete"
            has_failed |= message["type"] == "lifespan.startup.failed"
            if message["type"].startswith("lifespan.shutdown."):
                last_message = message
            else:
                await send(message)

        try:
            await self._app(scope, receive_from_start, send_all_but_last)
        except Exception:  # ASGI: an application that raises here does not support lifespans
            if is_started or has_failed:
                raise
        if has_failed:
            return
        if not is_started and last_message is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send(last_message or {"type": "lifespan.shutdown.complete"})
