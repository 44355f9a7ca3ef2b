"""Shared parts of servers that stand in for Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Serve each connection with this function and yield the port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with contextlib.closing(server):
        yield server.sockets[0].getsockname()[1]


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Read the words of the next command. Raise asyncio.IncompleteReadError if the connection ends."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
