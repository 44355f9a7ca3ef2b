"""What the ASGI middleware and the FastAPI dependencies of one KeyAuth share: visits, refusals, headers."""

from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.credentials import CredentialReader, Headers
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import AddressResolver, ClientAddress
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.cors import CorsRules
from fastapi_keyauth.http.headers import find_header
from fastapi_keyauth.http.problem_details import ProblemRenderer
from fastapi_keyauth.http.proxy_check import ProxyHeaderCheck
from fastapi_keyauth.http.rate_limit_headers import RateLimitHeaders
from fastapi_keyauth.telemetry.observer import Observer

WS_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class RequestHandler:
    """What the middleware and the dependencies of one KeyAuth share.

    Attributes:
        scope_key: the name under which a request's context lies in its ASGI scope.
        installed_on: the applications that turn refusals into responses.
    """

    def __init__(
        self,
        scope_key: str,
        credentials: CredentialReader,
        addresses: AddressResolver,
        authenticator: Authenticator,
        cors: CorsRules,
        problems: ProblemRenderer,
        rate_limit_headers: RateLimitHeaders,
        observer: Observer,
        peers: ProxyHeaderCheck | None,
    ) -> None:
        self.scope_key = scope_key
        self.installed_on: set[Any] = set()
        self.authenticator = authenticator
        self.cors = cors
        self._problems = problems
        self._credentials = credentials
        self._addresses = addresses
        self.rate_limit_headers = rate_limit_headers
        self._observer = observer
        self._peers = peers

    def open_context(self, scope: Scope) -> AuthContext:
        """A context for this request, laid into its scope."""
        if self._peers is not None and not self._peers.look(scope):
            self._peers = None
        headers: Headers = scope["headers"]
        by_name = dict(headers)
        credentials = self._credentials.read(headers, by_name)
        address = self._addresses.resolve(scope.get("client"), headers)
        origin = find_header(headers, b"origin") if b"origin" in by_name else None
        context = scope[self.scope_key] = AuthContext(
            credentials, address, origin.decode("latin-1") if origin else None
        )
        return context

    def client_address(self, connection: HTTPConnection) -> ClientAddress | None:
        """The client's address as blocks and allow lists saw it; None where the server gives none.

        Not looked up anew: a server may append the trailers of a chunked body to the headers, and they must not add
        to what a proxy said.
        """
        return self.get_context(connection).address

    def get_context(self, connection: HTTPConnection) -> AuthContext:
        """The context of a request.

        Raises:
            RuntimeError: the application was not installed on.
        """
        context: AuthContext | None = connection.scope.get(self.scope_key)
        if context is None or connection.scope.get("app") not in self.installed_on:
            # Also for an app that is mounted in one that knows it: nobody would turn its refusals into responses.
            raise RuntimeError("This app does not know its KeyAuth: call auth.install(app) once, where it is made.")
        return context

    def respond(self, error: KeyAuthError, context: AuthContext, scope: Scope) -> Response:
        """The response to an error."""
        response = self._problems.response(error, context)
        key, decision = context.key, context.decision
        self._observer.refused(
            error,
            response.code,
            method=scope.get("method", "WEBSOCKET"),
            path=scope["path"],
            address=None if context.address is None else context.address.text,
            token=context.credentials.token,
            key_id=None if key is None else key.id,
            owner_id=None if key is None else key.owner_id,
            hour=None if decision is None else decision.hour,
        )
        # The context keeps the error, and the traceback all frames, the context's among them: a circle for the garbage
        # collector at every refusal.
        error.__traceback__ = None
        return response

    async def handle(self, connection: HTTPConnection, error: KeyAuthError) -> Response | None:
        """The exception handler of an application: the response, or None where a WebSocket was closed in its place."""
        response = self.respond(error, self.get_context(connection), connection.scope)
        # The type first: both classes are abstract ones, for which isinstance takes as long as all that is above.
        if connection.scope["type"] == "websocket" and isinstance(connection, WebSocket):
            is_open = connection.application_state is not WebSocketState.CONNECTING
            if is_open or not can_answer_upgrade(connection.scope):
                await connection.close(WS_POLICY_VIOLATION)
                return None
        return response

    async def refuse(
        self, error: KeyAuthError, context: AuthContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send the refusal; to a WebSocket as an HTTP response where the server can, else by closing it."""
        response = self.respond(error, context, scope)
        if scope["type"] == "http" or can_answer_upgrade(scope):
            await response(scope, receive, send)
        else:
            await receive()  # websocket.connect; nothing may be sent before it
            await send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": ""})


def can_answer_upgrade(scope: Scope) -> bool:
    """Whether the server can answer a WebSocket's upgrade with an HTTP response (ASGI's denial extension)."""
    return "websocket.http.response" in scope.get("extensions", {})
