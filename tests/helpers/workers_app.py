"""The contract's host application for several workers: settings from KEYAUTH_*, and each answer names its worker.

If `TEST_CLOCK` names a file, all workers read the time from it; otherwise they use the system's and Redis's clocks.
"""

import os
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth import KeyAuth
from tests.helpers.contract_app import build_app
from tests.helpers.shared_clock import SharedClock


class WorkerNamed:
    """Middleware that adds the header `worker`, the process id, to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"worker", str(os.getpid()).encode())]
            await send(message)

        await self._app(scope, receive, send_named)


auth = KeyAuth(clock=SharedClock(Path(os.environ["TEST_CLOCK"])) if "TEST_CLOCK" in os.environ else None)
app = build_app(auth)
app.add_middleware(WorkerNamed)


@app.post("/log-in/{user_id}")
async def log_in(user_id: str, scopes: str = "*") -> dict[str, str]:
    """Create a session for that user, without a password."""
    return {"session_token": await auth.sessions.create(user_id, scopes=scopes.split())}
