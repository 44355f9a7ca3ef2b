"""A real uvicorn in a thread with an event loop of its own, for browsers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from fastapi_keyauth import KeyAuth

START_TIMEOUT_S = 60.0
T = TypeVar("T")


class Server:
    """Starts `parts` and serves `app` on a free port of 127.0.0.1, until it is closed."""

    def __init__(self, app: ASGIApp, *parts: KeyAuth) -> None:
        self._parts = parts
        self._loop = asyncio.new_event_loop()
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(app, interface="asgi3", ws="none", lifespan="off", log_level="warning", proxy_headers=False)
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="site", daemon=True)
        self._thread.start()
        if not self._is_up.wait(START_TIMEOUT_S):
            raise RuntimeError("the server does not start")

    def close(self) -> None:
        """Stop serving."""
        self._uvicorn.should_exit = True
        self._thread.join(START_TIMEOUT_S)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve_until_closed())
        finally:
            self._loop.close()

    async def _serve_until_closed(self) -> None:
        async with AsyncExitStack() as stack:
            for part in self._parts:
                await stack.enter_async_context(part)
            self._is_up.set()
            await self._uvicorn.serve(sockets=[self._socket])
