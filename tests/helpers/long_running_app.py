"""An event stream and a WebSocket that name their worker and last until they are ended. Settings from KEYAUTH_*."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from fastapi_keyauth import KeyAuth, KeyPrincipal

auth = KeyAuth()
app = FastAPI()
auth.install(app)


@app.get("/events", dependencies=[Depends(auth.require_key)])
async def events() -> StreamingResponse:
    """Send the process id, then nothing."""

    async def parts() -> AsyncIterator[str]:
        yield f"data: {os.getpid()}\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(parts(), media_type="text/event-stream")


@app.websocket("/socket")
async def socket(websocket: WebSocket, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
    """Send the process id, then wait for the client."""
    await websocket.accept()
    await websocket.send_text(str(os.getpid()))
    async for _ in websocket.iter_text():
        pass
