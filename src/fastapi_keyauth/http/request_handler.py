"""What the ASGI middleware and the FastAPI dependencies of one KeyAuth share: visits, refusals, headers."""

from functools import lru_cache
from typing import Any, Literal

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.credentials import CredentialReader, Headers
from fastapi_keyauth.auth.request_context import Visit
from fastapi_keyauth.domain.ip_addresses import AddressResolver, ClientAddress
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.http.cors import CorsRules, RawHeaders, add_vary
from fastapi_keyauth.http.problem_details import Problems
from fastapi_keyauth.http.proxy_check import PeerWatch
from fastapi_keyauth.limiter.protocol import HOUR_S
from fastapi_keyauth.telemetry.observer import Observer

WS_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
RateLimitHeaders = Literal["ietf", "legacy", "both", "none"]


class Edge:
    """What the middleware and the dependencies of one KeyAuth share.

    Attributes:
        scope_key: the name under which a request's visit lies in its ASGI scope.
        installed_on: the applications that turn refusals into responses.
    """

    def __init__(
        self,
        scope_key: str,
        credentials: CredentialReader,
        addresses: AddressResolver,
        authenticator: Authenticator,
        cors: CorsRules,
        problems: Problems,
        rate_limit_headers: RateLimitHeaders,
        observer: Observer,
        peers: PeerWatch | None,
    ) -> None:
        self.scope_key = scope_key
        self.installed_on: set[Any] = set()
        self.authenticator = authenticator
        self.cors = cors
        self._problems = problems
        self._credentials = credentials
        self._addresses = addresses
        self._rate_limit_headers = rate_limit_headers
        self._observer = observer
        self._peers = peers

    def open_visit(self, scope: Scope) -> Visit:
        """A visit for this request, laid into its scope."""
        if self._peers is not None and not self._peers.look(scope):
            self._peers = None
        headers: Headers = scope["headers"]
        by_name = dict(headers)
        credentials = self._credentials.read(headers, by_name)
        address = self._addresses.resolve(scope.get("client"), headers)
        origin = find_header(headers, b"origin") if b"origin" in by_name else None
        visit = scope[self.scope_key] = Visit(credentials, address, origin.decode("latin-1") if origin else None)
        return visit

    def client_address(self, connection: HTTPConnection) -> ClientAddress | None:
        """The client's address as blocks and allow lists saw it; None where the server gives none.

        Not looked up anew: a server may append the trailers of a chunked body to the headers, and they must not add
        to what a proxy said.
        """
        return self.find_visit(connection).address

    def find_visit(self, connection: HTTPConnection) -> Visit:
        """The visit of a request.

        Raises:
            RuntimeError: the application was not installed on.
        """
        visit: Visit | None = connection.scope.get(self.scope_key)
        if visit is None or connection.scope.get("app") not in self.installed_on:
            # Also for an app that is mounted in one that knows it: nobody would turn its refusals into responses.
            raise RuntimeError("This app does not know its KeyAuth: call auth.install(app) once, where it is made.")
        return visit

    def respond(self, error: KeyAuthError, visit: Visit, scope: Scope) -> Response:
        """The response to an error."""
        response = self._problems.response(error, visit)
        self._observer.refused(error, response.code, visit, scope)
        # The visit keeps the error, and the traceback all frames, the visit's among them: a circle for the garbage
        # collector at every refusal.
        error.__traceback__ = None
        return response

    async def handle(self, connection: HTTPConnection, error: KeyAuthError) -> Response | None:
        """The exception handler of an application: the response, or None where a WebSocket was closed in its place."""
        response = self.respond(error, self.find_visit(connection), connection.scope)
        # The type first: both classes are abstract ones, for which isinstance takes as long as all that is above.
        if connection.scope["type"] == "websocket" and isinstance(connection, WebSocket):
            is_open = connection.application_state is not WebSocketState.CONNECTING
            if is_open or not can_answer_upgrade(connection.scope):
                await connection.close(WS_POLICY_VIOLATION)
                return None
        return response

    async def refuse(self, error: KeyAuthError, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal; to a WebSocket as an HTTP response where the server can, else by closing it."""
        response = self.respond(error, visit, scope)
        if scope["type"] == "http" or can_answer_upgrade(scope):
            await response(scope, receive, send)
        else:
            await receive()  # websocket.connect; nothing may be sent before it
            await send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": ""})

    def complete(self, headers: RawHeaders, visit: Visit) -> None:
        """Add the headers of the rate limit, and ``Vary``, to a response."""
        decision, key, mode = visit.decision, visit.key, self._rate_limit_headers
        if decision is not None and decision.remaining is not None and key is not None and key.hourly_limit is not None:
            if mode in ("ietf", "both"):
                headers.append(_policy_header(key.hourly_limit))
                headers.append((b"ratelimit", b'"hour";r=%d;t=%d' % (decision.remaining, decision.wait_s)))
            if mode in ("legacy", "both"):
                headers.append((b"x-ratelimit-limit", b"%d" % key.hourly_limit))
                headers.append((b"x-ratelimit-remaining", b"%d" % decision.remaining))
                headers.append((b"x-ratelimit-reset", b"%d" % decision.reset_at_s))
        add_vary(headers)


@lru_cache(maxsize=256)
def _policy_header(limit: int) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"hour";q=%d;w=%d' % (limit, HOUR_S)


def can_answer_upgrade(scope: Scope) -> bool:
    """Whether the server can answer a WebSocket's upgrade with an HTTP response (ASGI's denial extension)."""
    return "websocket.http.response" in scope.get("extensions", {})


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """A header's value; several are joined, so that a doubled one equals none that is allowed. None where absent."""
    found = None
    for present, value in headers:
        if present == name:
            if found is not None:
                # At once: a server may bound neither their number nor their size, and adding to bytes copies them all.
                return b", ".join([value for present, value in headers if present == name])
            found = value
    return found
