"""An application whose requests last until they are ended, and clients that note how that came about."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import websockets
from fastapi import BackgroundTasks, Depends, FastAPI, Security, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from fastapi_keyauth import KeyAuth
from tests.helpers.waiting import HANG_S, until

ENDS_WITHIN_S = 10.0
"""A guard against hanging. Tests of the promised time compare `Ended.at`."""
THREAD_HANG_S = 20.0


@dataclass
class Record:
    """What happened in the application, by the names of its routes."""

    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    thread_may_end: threading.Event = field(default_factory=threading.Event)


def build_long_app(auth: KeyAuth, record: Record, requirement: Any = None, big_file: Path | None = None) -> FastAPI:
    """Return an application on which `auth` is installed. `requirement` is the dependency of its routes."""
    app = FastAPI()
    auth.install(app)
    required = auth.require_key if requirement is None else requirement

    async def held(key: Annotated[Any, Depends(required)]) -> AsyncIterator[Any]:
        try:
            yield key
        finally:
            await asyncio.sleep(0)  # What is released may take a turn of the event loop.
            record.released.append("held")

    async def wait_in(name: str) -> None:
        record.begun.append(name)
        try:
            await record.go_on.wait()
        except asyncio.CancelledError:
            record.cancelled.append(name)
            raise
        record.done.append(name)

    @app.get("/slow", dependencies=[Depends(held)])
    async def slow() -> str:
        await wait_in("slow")
        return "done"

    @app.get("/thread", dependencies=[Depends(held)])
    def thread() -> str:
        record.begun.append("thread")
        record.thread_may_end.wait(THREAD_HANG_S)
        record.done.append("thread")
        return "done"

    @app.get("/stream", dependencies=[Depends(held)])
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts("stream", b"part"), media_type="application/octet-stream")

    @app.get("/events", dependencies=[Depends(held)])
    async def events() -> StreamingResponse:
        return StreamingResponse(parts("events", b"data: hello\n\n"), media_type="text/event-stream")

    @app.get("/half", dependencies=[Depends(held)])
    async def half() -> StreamingResponse:
        return StreamingResponse(parts("half", b"data: not yet whole\n"), media_type="text/event-stream")

    @app.get("/pings", dependencies=[Depends(held)])
    async def pings() -> StreamingResponse:
        return StreamingResponse(
            parts("pings", b"data: he", b"llo\n", b"\n", b": ping\n"), media_type="text/event-stream"
        )

    async def parts(name: str, *parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        await wait_in(name)

    @app.get("/scoped", dependencies=[Security(required, scopes=["items:read"])])
    async def scoped() -> StreamingResponse:
        return StreamingResponse(parts("scoped", b"data: hello\n\n"), media_type="text/event-stream")

    @app.get("/file", dependencies=[Depends(required)])
    async def file() -> FileResponse:
        assert big_file is not None
        return FileResponse(big_file)

    @app.get("/sized", dependencies=[Depends(required)])
    async def sized() -> StreamingResponse:
        return StreamingResponse(parts("sized", b"x" * 10), headers={"content-length": "1000"})

    @app.get("/followed", dependencies=[Depends(required)])
    async def followed() -> StreamingResponse:
        after = BackgroundTask(wait_in, "after")
        return StreamingResponse(parts("followed", b"part"), background=after)

    @app.get("/background", dependencies=[Depends(required)])
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(wait_in, "background")
        return "done"

    @app.get("/short", dependencies=[Depends(required)])
    async def short() -> str:
        return "done"

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, key: Annotated[Any, Depends(held)]) -> None:
        await websocket.accept()
        record.begun.append("socket")
        try:
            async for text in websocket.iter_text():
                await websocket.send_text(text)
        except asyncio.CancelledError:
            record.cancelled.append("socket")
            raise

    @app.websocket("/late")
    async def late(websocket: WebSocket, key: Annotated[Any, Depends(held)]) -> None:
        await wait_in("late")
        await websocket.accept()

    return app


@dataclass(frozen=True)
class Ended:
    """How a request ended.

    Attributes:
        at: When, on the monotonic clock.
        status: Status of the response. 101 for an accepted WebSocket.
        code: Code of the problem that the client was sent: as body, as event or as the reason of a close.
        is_cut: Whether the response was not complete.
        headers: Headers of the response.
        text: Everything that was received.
    """

    at: float
    status: int
    code: str | None
    is_cut: bool
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""


class Clients:
    """Open requests to one server.

    Args:
        base_url: Its URL.
        record: What happens in the application.
    """

    def __init__(self, base_url: str, record: Record) -> None:
        self._base_url = base_url
        self.port = int(base_url.rpartition(":")[2])
        self._record = record
        self._tasks: list[asyncio.Task[Ended]] = []
        self._http = httpx.AsyncClient(base_url=base_url, timeout=HANG_S, limits=httpx.Limits(max_connections=None))

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def open(self, path: str, headers: dict[str, str], *, runs: bool = True) -> "asyncio.Task[Ended]":
        """Send a request. Return once the application runs it, with a task that returns how it ended."""
        name = path.strip("/").partition("?")[0]
        before = self._record.begun.count(name)
        kind = self._socket if name in ("socket", "late") else self._request
        task = asyncio.create_task(kind(path, headers))
        self._tasks.append(task)
        if runs:
            await until(lambda: task.done() or self._record.begun.count(name) > before)
            assert not task.done(), task.result()
        return task

    async def _request(self, path: str, headers: dict[str, str]) -> Ended:
        text, is_cut = "", False
        async with self._http.stream("GET", path, headers=headers) as response:
            try:
                async for part in response.aiter_text():
                    text += part
            except httpx.RemoteProtocolError:
                is_cut = True
        ended_at = time.monotonic()
        return Ended(ended_at, response.status_code, _code_in(text), is_cut, response.headers, text)

    async def _socket(self, path: str, headers: dict[str, str]) -> Ended:
        url = f"ws{self._base_url.removeprefix('http')}{path}"
        try:
            async with websockets.connect(url, additional_headers=headers) as socket:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await socket.recv()
                return Ended(time.monotonic(), 101, socket.close_reason, socket.close_code != 1008)
        except websockets.InvalidStatus as refused:
            text = refused.response.body.decode() if refused.response.body else ""
            received = httpx.Headers(list(refused.response.headers.raw_items()))
            return Ended(time.monotonic(), refused.response.status_code, _code_in(text), False, received, text)


def _code_in(text: str) -> str | None:
    """Return the code of a problem: that of a body, or of the event `error` at the end of a stream."""
    last = text.rstrip("\n").rpartition("\n\n")[2]
    data = last.removeprefix("event: error\ndata: ") if last.startswith("event: error\n") else text
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document.get("code") if isinstance(document, dict) else None


async def ends(task: "asyncio.Task[Ended]") -> Ended:
    """Return how a request ended."""
    async with asyncio.timeout(ENDS_WITHIN_S):
        return await task


Change = Callable[[], Awaitable[object]]
