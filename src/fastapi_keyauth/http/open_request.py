"""One request until its response is complete: completes the headers of the response, and can end the request."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.cors import RawHeaders
from fastapi_keyauth.http.disconnection import disconnect
from fastapi_keyauth.http.event_stream import START, add_tail, error_event, is_event_stream
from fastapi_keyauth.http.host_cors import is_inside_credentials, with_host_cors
from fastapi_keyauth.http.rate_limit_headers import add_rate_limit_headers
from fastapi_keyauth.http.request_handler import WS_POLICY_VIOLATION, RequestHandler

SEND_WITHIN_S = 1.0
"""Seconds that the server may take to send the last message to a client that was cut off."""

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_ENDS = frozenset({"http.response.pathsend", "http.response.zerocopysend", "websocket.close"})


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
        ending: Tells the client that the request was ended. None: the request goes on.
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
        self.ending: asyncio.Task[None] | None = None
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
            add_rate_limit_headers(headers, self.context, self._handler.rate_limit_headers)
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

    def end(self, error: KeyAuthError) -> None:
        """Cancel the application, and tell the client why: by the refusal, or by what its started response allows.

        It is called in another task than that of the request.

        Args:
            error: Why the request would be refused now.
        """
        if self.ending is not None or self.is_complete or self.task is None:
            return
        self._cancelling = self.task.cancelling()
        code = self._handler.report_ended(error, self.context, self.scope)
        self.ending = asyncio.create_task(self._end(error, code), name="keyauth-end")
        self.task.cancel()

    async def absorb(self, error: BaseException | None) -> bool:
        """Wait until the client of an ended request has been answered. Called by the request's own task.

        Args:
            error: What the application raised, or None if it returned.

        Returns:
            Whether there is nothing to raise: the request was ended, and the error is only a consequence.
        """
        if self.ending is None or self.task is None:
            return False
        is_cancelled_by_others = self.task.uncancel() > self._cancelling
        await self.ending
        return not is_cancelled_by_others and (error is None or _is_by_ending(error))

    async def _end(self, error: KeyAuthError, code: str) -> None:
        is_answered = False
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                is_answered = await self._answer(error, code)
        except (TimeoutError, OSError):
            pass  # the client does not read, or has disconnected
        if not is_answered and self.scope["type"] == "http":
            await disconnect(self.scope, self._receive)

    async def _answer(self, error: KeyAuthError, code: str) -> bool:
        """Send the last message. Return whether the response is complete with it."""
        if self._started is None:
            refusal = partial(self._handler.refuse, error, self.context)
            refused = OpenRequest(
                refusal, self._handler, self.context, self.scope, self._receive, self._send, self._origin
            )
            await with_host_cors(self._app, refusal)(self.scope, _receive_nothing(self.scope), refused.send)
            return True
        if self.scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": code})
            return True
        if is_event_stream(self._started):
            event = error_event(self._tail, self._handler.body_of(error, self.context))
            if event is not None:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
        return False


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
