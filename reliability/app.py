"""The application under test: a route for keys, their management, and a witness. Settings: KEYAUTH_*."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal

SLOW_S = 0.3


class Witness:
    """Middleware that adds the worker and its milliseconds to each response.

    At shutdown it writes the numbers of requests that this worker began and finished to ``stopped-<process
    id>.json``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0
        self._finished = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            await self._watch(scope, receive, send)
            return

        async def send_at_last(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                counts = json.dumps({"begun": self._begun, "finished": self._finished})
                Path(f"stopped-{os.getpid()}.json").write_text(counts)  # noqa: ASYNC240  # nothing is left to wait
            await send(message)

        await self._app(scope, receive, send_at_last)

    async def _watch(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._begun += 1
        began_at = time.monotonic()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                took_ms = f"{(time.monotonic() - began_at) * 1000:.1f}"
                names = [(b"worker", str(os.getpid()).encode()), (b"took-ms", took_ms.encode())]
                message["headers"] = [*message["headers"], *names]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._finished += 1

        await self._app(scope, receive, send_named)


auth = KeyAuth()
api = FastAPI()
auth.install(api)
api.include_router(auth.keys_router, prefix="/api-keys")
app = Witness(api)


@api.get("/models")
async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, str]:
    """Return a response to any valid key."""
    return {"key": key.id}


@api.get("/slow")
async def slow(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, str]:
    """Return the same response after a delay."""
    await asyncio.sleep(SLOW_S)
    return {"key": key.id}


@api.get("/open")
async def open_to_all() -> dict[str, str]:
    """Return the worker's id without requiring a key."""
    return {}


@api.post("/log-in/{user_id}")
async def log_in(user_id: str, scopes: str = "*") -> dict[str, str]:
    """Create a session for that user, without a password."""
    return {"session_token": await auth.sessions.create(user_id, scopes=scopes.split())}
