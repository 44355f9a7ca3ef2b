"""Closing the connection of a response that cannot be completed."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope

FLUSH_WITHIN_S = 1.0
"""Seconds that a client has to read the sent data before the connection is closed."""


class Disconnection:
    """A connection that is being closed, so that the client sees that the response is not complete.

    ASGI has no message for this. Every server does it when an application returns before its response is complete, but
    uvicorn first logs an error, unless the client has disconnected. Its ``receive`` belongs to the object that has the
    transport.
    """

    def __init__(self, transport: Any, receive: Receive) -> None:
        self._receive = receive
        transport.close()  # once everything has been written
        self._abort = asyncio.get_running_loop().call_later(FLUSH_WITHIN_S, transport.abort)

    @classmethod
    def begin(cls, scope: Scope, receive: Receive) -> "Disconnection | None":
        """Begin to close the connection of a request.

        Returns:
            None if it cannot be closed: it belongs to another server, or is over HTTP/2, where others share it.
        """
        transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
        if not scope["http_version"].startswith("1") or not hasattr(transport, "abort"):
            return None
        return cls(transport, receive)

    async def wait(self) -> None:
        """Wait until the server knows that the connection is closed."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._abort.cancel()
