"""The app behind a real uvicorn in this process, and handwritten requests that no client library would send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp

from tests.helpers.waiting import until

READ_WITHIN_S = 10.0


@asynccontextmanager
async def served(app: ASGIApp, http: Literal["h11", "httptools"], **options: Any) -> AsyncIterator[int]:
    """Serve the app and yield the port. Its log lines go to the test's own logging."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=http, log_config=None, proxy_headers=False, lifespan="off", **options
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done())
        assert server.started
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def exchange(
    port: int, sent: bytes, later: bytes = b"", when: asyncio.Event | None = None, *, head_only: bool = False
) -> bytes:
    """Return the server's complete response to these bytes, and to those sent after an event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            writer.write(sent)
            if when is not None:
                await when.wait()
                writer.write(later)
            return await (reader.readuntil(b"\r\n\r\n") if head_only else reader.read())
    finally:
        writer.close()


def request(*lines: bytes, method: bytes = b"GET", path: bytes = b"/models", body: bytes = b"") -> bytes:
    """Return a request with these header lines, after which the server must close the connection."""
    head = [method + b" " + path + b" HTTP/1.1", b"host: testserver", b"connection: close", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    """Return the status of the first response; 0 if there is no response."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
