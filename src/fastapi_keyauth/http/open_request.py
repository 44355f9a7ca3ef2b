"""One request until its response is complete: completes the headers of the response, and can end the request."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.cors import RawHeaders
from fastapi_keyauth.http.disconnection import Disconnection
from fastapi_keyauth.http.event_stream import START, add_tail, error_event, is_event_stream
from fastapi_keyauth.http.host_cors import is_inside_credentials, with_host_cors
from fastapi_keyauth.http.problem_details import find_problem_type
from fastapi_keyauth.http.request_handler import WS_POLICY_VIOLATION, RequestHandler

SEND_WITHIN_S = 1.0
"""Seconds that the server may take to send the last message to a client that was cut off."""

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_ENDS = frozenset({"http.response.pathsend", "http.response.zerocopysend", "websocket.close"})


Answer = Callable[[], Awaitable[None]]
"""Sends the last message to a client."""


class RequestEnded(OSError):
    """Raised by ``send`` after a request was ended. To the application, the client has disconnected."""


class OpenRequest:
    """A request whose response may not be complete yet.

    Not a dataclass, since one is created for every request.

    Args:
        app: The application that runs it.
        handler: The parts that are shared with the dependencies.
        context: The request's context.
        scope: The request's ASGI scope.
        receive: Receives from the client.
        send: Sends to the client.
        origin: The origin that may be allowed to read the response. None: no CORS headers are added.
        began_at: When it began, on the monotonic clock.
        task: The task that runs it. None: it cannot be ended.

    Attributes:
        context, scope, began_at, task: As above.
        is_complete: Whether its response was handed to the server as a whole.
        ending: Why it was ended. None: it goes on.
    """

    # Slots and an attribute of the class, as in ``AuthContext``.
    __slots__ = (
        "__dict__",
        "_app",
        "_handler",
        "_origin",
        "_receive",
        "_send",
        "_started",
        "began_at",
        "context",
        "ending",
        "is_complete",
        "scope",
        "task",
    )
    _tail: bytes = START
    _cancelling: int = 0
    _is_told: bool = False
    _is_finished: bool = False
    _is_cancelled: bool = False
    _telling: asyncio.Task[None] | None = None
    _finished: asyncio.Event | None = None
    _disconnection: Disconnection | None = None

    def __init__(
        self,
        app: ASGIApp,
        handler: RequestHandler,
        context: AuthContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        origin: str | None,
        began_at: float = 0.0,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.context = context
        self.scope = scope
        self.began_at = began_at
        self.task = task
        self.is_complete = False
        self.ending: KeyAuthError | None = None
        self._app = app
        self._handler = handler
        self._receive = receive
        self._send = send
        self._origin = origin
        self._started: RawHeaders | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application, with our headers added to the start of a response."""
        if self.ending is not None:
            raise RequestEnded("the credentials of this request are no longer valid")
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body"):
                self.is_complete = True
            elif message.get("body"):
                self._tail = add_tail(self._tail, message["body"])
        elif kind in _STARTS:
            headers = [*message.get("headers", ())]
            self._handler.rate_limit_headers.add(headers, self.context)
            message = {**message, "headers": headers}
            if self._origin is not None and self._handler.takes_key(self.context, self.scope):
                return self._send_cross_origin(message, self._origin)
            self._started = headers
        elif kind == "websocket.accept":
            self._started = []
        elif kind in _ENDS:
            self.is_complete = True
        return self._send(message)  # not awaited: that would cost one more coroutine for every part of a stream

    async def _send_cross_origin(self, message: Message, origin: str) -> None:
        if not is_inside_credentials(self._receive, self._send):
            message["headers"] = await self._handler.cors.add_headers(message["headers"], origin, self.context.key)
        if self.ending is not None:
            raise RequestEnded("the credentials of this request are no longer valid")
        self._started = message["headers"]
        await self._send(message)

    def end(self, error: KeyAuthError) -> bool:
        """Refuse the application's messages from now on. ``tell`` and then ``finish`` must follow.

        All three are called in another task than that of the request.

        Args:
            error: Why the request would be refused now.

        Returns:
            Whether it was ended. If not, its response is complete, or it was ended before.
        """
        if self.ending is not None or self.is_complete or self.task is None:
            return False
        error._is_reported = True
        self.ending = error
        self._cancelling = self.task.cancelling()
        return True

    def tell(self) -> None:
        """Tell the client why: by the refusal, or by what its started response allows."""
        error = self.ending
        if error is None or self._is_told:
            return
        self._is_told = True
        answer = self._find_answer(error)
        if answer is not None:
            self._telling = asyncio.create_task(self._tell(answer), name="keyauth-end")

    def finish(self) -> None:
        """Cancel the application, and close the connection if the response is not complete."""
        if self.ending is None or self.task is None or self._is_finished:
            return
        self._is_finished = True
        if self._telling is None:
            self._close()
        if self._finished is None:
            self._is_cancelled = True
            self.task.cancel()
        else:
            self._finished.set()

    def report(self) -> None:
        """Report the end to the log and the counters."""
        if self.ending is not None:
            self._handler.report_ended(self.ending, self.context, self.scope)

    async def absorb(self, error: BaseException | None) -> bool:
        """Wait until the client of an ended request has been answered. Called by the request's own task.

        Args:
            error: What the application raised, or None if it returned.

        Returns:
            Whether there is nothing to raise: the request was ended, and the error is only a consequence.
        """
        if self.ending is None or self.task is None:
            return False
        cancelling = self.task.uncancel() if self._is_cancelled else self.task.cancelling()
        if not self._is_finished:
            self._finished = asyncio.Event()  # only if the application returned before it was cancelled
            await self._finished.wait()
        if self._telling is not None:
            await self._telling
        if self._disconnection is not None:
            await self._disconnection.wait()
        return cancelling <= self._cancelling and (error is None or _is_by_ending(error))

    async def _tell(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await answer()
        except (TimeoutError, OSError):
            self.is_complete = False  # the client does not read, or has disconnected
        self._telling = None  # after another error, ``absorb`` finds it and raises that
        if self._is_finished:
            self._close()

    def _close(self) -> None:
        if not self.is_complete and self.scope["type"] == "http":
            self._disconnection = Disconnection.begin(self.scope, self._receive)

    def _find_answer(self, error: KeyAuthError) -> Answer | None:
        """Return what sends the last message to the client. None if there is nothing to send."""
        if self._started is None:
            return partial(self._refuse, error)
        if self.scope["type"] == "websocket":
            return partial(self._close_websocket, find_problem_type(error).code)
        event = error_event(self._tail, self._handler.body_of(error)) if is_event_stream(self._started) else None
        if event is None:
            return None
        return partial(self._send, {"type": "http.response.body", "body": event, "more_body": True})

    async def _refuse(self, error: KeyAuthError) -> None:
        refusal = partial(self._handler.refuse, error, self.context)
        refused = OpenRequest(refusal, self._handler, self.context, self.scope, self._receive, self._send, self._origin)
        await with_host_cors(self._app, refusal)(self.scope, _receive_nothing(self.scope), refused.send)
        self.is_complete = True

    async def _close_websocket(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):  # the server's, if the client has closed it meanwhile
            await self._send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": reason})
        self.is_complete = True


def _receive_nothing(scope: Scope) -> Receive:
    """Return a ``receive`` for the refusal. The client's own messages belong to the application that was cancelled."""
    message: Message = {"type": "websocket.connect"}
    if scope["type"] == "http":
        message = {"type": "http.request", "body": b"", "more_body": False}

    async def receive() -> Message:
        return message

    return receive


def _is_by_ending(error: BaseException) -> bool:
    """Return whether an application raised this error because its request was ended."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_by_ending, error.exceptions))
    return isinstance(error, asyncio.CancelledError | RequestEnded | ClientDisconnect | WebSocketDisconnect)
