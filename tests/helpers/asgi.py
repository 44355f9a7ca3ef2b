"""Raw ASGI calls, for requests that an HTTP client library would never send."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

HeaderLines = Sequence[tuple[bytes, bytes]]
PEER = ("203.0.113.7", 4711)


@dataclass
class RawAnswer:
    """The app's response, byte for byte."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    @property
    def code(self) -> str | None:
        """Return the problem's `code`, or None if the body is not a JSON object."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document.get("code") if isinstance(document, dict) else None


async def call(
    app: ASGIApp,
    path: str = "/models",
    *,
    headers: HeaderLines = (),
    method: str = "GET",
    query: bytes = b"",
    peer: tuple[str, int] | None = PEER,
    body: bytes = b"",
) -> RawAnswer:
    """Send one HTTP request. A `peer` of None simulates a Unix socket."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"testserver"), *headers],
        "client": peer,
        "server": ("testserver", 80),
        "state": {},
    }
    answer = RawAnswer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


async def knock(
    app: ASGIApp,
    path: str = "/ws",
    *,
    headers: HeaderLines = (),
    denial_response: bool = True,
) -> list[Message]:
    """Send one WebSocket upgrade and return the app's messages.

    With `denial_response` the server can refuse an upgrade with an HTTP response.
    """
    scope: dict[str, Any] = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), *headers],
        "client": PEER,
        "server": ("testserver", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial_response else {},
        "state": {},
    }
    incoming: list[Message] = [{"type": "websocket.connect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent
