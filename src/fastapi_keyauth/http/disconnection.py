"""Closing the connection of a response that cannot be completed."""

import asyncio
import contextlib
from typing import Any

from starlette.types import Receive, Scope

FLUSH_WITHIN_S = 1.0
"""Seconds that a client has to read the sent data before the connection is closed."""


async def disconnect(scope: Scope, receive: Receive) -> None:
    """Close the connection, so that the client sees that the response is not complete.

    ASGI has no message for this. Every server does it when an application returns before its response is complete, but
    uvicorn first logs an error, unless the client has disconnected. Its ``receive`` belongs to the object that has the
    transport. With other servers, and over HTTP/2, where others share the connection, this does nothing.
    """
    transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
    if not scope["http_version"].startswith("1") or not hasattr(transport, "abort"):
        return
    transport.close()  # once everything has been written
    try:
        async with asyncio.timeout(FLUSH_WITHIN_S):
            await _wait_for_disconnect(receive)
    except TimeoutError:
        transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN_S):
                await _wait_for_disconnect(receive)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
