"""Start and stop beside an application's own lifespan, also one that has none."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WithLifespan:
    """An ASGI application with a context around its life.

    Args:
        context: entered at startup, left at shutdown.
        app: the application; whether it knows the lifespan protocol does not matter.
    """

    def __init__(self, context: AbstractAsyncContextManager[Any], app: ASGIApp) -> None:
        self._context = context
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
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
        """Let the application live, or live in its place. The last word is sent when it has nothing more to do."""
        last_word: Message | None = None
        is_started = has_failed = False
        pending = [startup]

        async def receive_from_start() -> Message:
            return pending.pop() if pending else await receive()

        async def send_all_but_last(message: Message) -> None:
            nonlocal last_word, is_started, has_failed
            is_started |= message["type"] == "lifespan.startup.complete"
            has_failed |= message["type"] == "lifespan.startup.failed"
            if message["type"].startswith("lifespan.shutdown."):
                last_word = message
            else:
                await send(message)

        try:
            await self._app(scope, receive_from_start, send_all_but_last)
        except Exception:  # by the protocol: an application that raises here has no lifespan
            if is_started or has_failed:
                raise
        if has_failed:
            return
        if not is_started and last_word is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send(last_word or {"type": "lifespan.shutdown.complete"})
