"""A proxy before Redis that loses an answer, or a command before it is carried out: the connection ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import hiredis

from tests.helpers.fakes import listening, read_command


class CuttingProxy:
    """Forwards commands one by one.

    Args:
        target: URL of the server.
        is_cluster: Whether to introduce itself as the one node of a cluster.

    Attributes:
        port: Port of the proxy.
        cuts: Number of script calls that lose their answer from now on.
        cuts_before: Number of script calls that are lost from now on before they are carried out.
        holds: Number of script calls from now on whose answers never arrive, although the connection stays open.
        lost: Number of calls and answers that were lost.
    """

    def __init__(self, target: str, *, is_cluster: bool) -> None:
        self._target = urlsplit(target)
        self._is_cluster = is_cluster
        self.port = 0
        self.cuts = 0
        self.cuts_before = 0
        self.holds = 0
        self.lost = 0

    @property
    def url(self) -> str:
        """The URL for clients of the proxy."""
        scheme, path = ("redis+cluster", "") if self._is_cluster else ("redis", self._target.path)
        return f"{scheme}://{self._target.username or ''}:{self._target.password}@127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends or is cut."""
        from_server, to_server = await asyncio.open_connection(self._target.hostname, self._target.port)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                words = await read_command(reader)
                if self.cuts_before and words[0].startswith(b"EVAL"):
                    self.cuts_before -= 1
                    self.lost += 1
                    break
                if self._is_cluster and words[0] == b"CLUSTER":
                    answer = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port
                else:
                    to_server.write(b"*%d\r\n" % len(words))
                    to_server.writelines(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
                    answer = await _read_answer(from_server)
                if self.cuts and words[0].startswith(b"EVAL") and not answer.startswith(b"-"):
                    self.cuts -= 1
                    self.lost += 1
                    break
                if self.holds and words[0].startswith(b"EVAL") and not answer.startswith(b"-"):
                    self.holds -= 1
                    self.lost += 1
                    continue
                writer.write(answer)
                await writer.drain()
        to_server.close()
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes of one answer."""
    parser, received = hiredis.Reader(), b""
    while parser.gets() is False:
        piece = await reader.read(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        parser.feed(piece)
        received += piece
    return received


@contextlib.asynccontextmanager
async def cutting_proxy(target: str, *, is_cluster: bool = False) -> AsyncIterator[CuttingProxy]:
    """Run a proxy before a server and yield it."""
    proxy = CuttingProxy(target, is_cluster=is_cluster)
    async with listening(proxy.serve) as proxy.port:
        yield proxy
