"""The parts that the ASGI middlewares and the FastAPI dependencies of one KeyAuth share: contexts and refusals."""

from typing import Any

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.credentials import CredentialReader, Headers
from fastapi_keyauth.auth.misplaced_keys import MisplacedKeys
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.domain.ip_addresses import AddressResolver, ClientAddress
from fastapi_keyauth.errors import KeyAuthError, MissingApiKey, MissingCredentials, RateLimitExceeded
from fastapi_keyauth.http.cors import CorsRules
from fastapi_keyauth.http.problem_details import find_problem_type
from fastapi_keyauth.http.problem_renderer import ProblemRenderer, ProblemResponse
from fastapi_keyauth.http.proxy_check import ProxyHeaderCheck
from fastapi_keyauth.http.rate_limit_headers import RateLimitHeaders, RateLimitHeaderWriter
from fastapi_keyauth.http.route_costs import RouteCosts
from fastapi_keyauth.http.routes import find_dependant, iterate_dependants
from fastapi_keyauth.telemetry.observer import Observer

WS_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
CURRENT = "fastapi_keyauth.current"
"""Key in an ASGI scope of the ``RequestHandler`` that handled the request last, and therefore answers errors."""


class RequestHandler:
    """The parts that the middlewares and the dependencies of one KeyAuth share.

    Attributes:
        scope_key: Key of a request's context in its ASGI scope.
        installed_on: The applications that turn refusals into responses.
    """

    def __init__(
        self,
        scope_key: str,
        credentials: CredentialReader,
        misplaced_keys: MisplacedKeys,
        addresses: AddressResolver,
        authenticator: Authenticator,
        cors: CorsRules,
        problems: ProblemRenderer,
        rate_limit_headers: RateLimitHeaders,
        observer: Observer,
        peers: ProxyHeaderCheck | None,
        event_loop: EventLoopBinding,
    ) -> None:
        self.scope_key = scope_key
        self.installed_on: set[Any] = set()
        self.authenticator = authenticator
        self.cors = cors
        self.costs = RouteCosts()
        self._problems = problems
        self._credentials = credentials
        self._misplaced_keys = misplaced_keys
        self._addresses = addresses
        self.rate_limit_headers = RateLimitHeaderWriter(rate_limit_headers)
        self._observer = observer
        self._peers = peers
        self._event_loop = event_loop

    def open_context(self, scope: Scope) -> AuthContext:
        """Open a context for a request and store it in the request's scope."""
        if self._peers is not None and not self._peers.check(scope):
            self._peers = None
        headers: Headers = scope["headers"]
        credentials, origin = self._credentials.read(headers)
        address = self._addresses.resolve(scope.get("client"), headers)
        context = AuthContext(credentials, address, origin)
        scope[self.scope_key] = context
        scope[CURRENT] = self
        return context

    def close_context(self, scope: Scope) -> None:
        """Remove a request's context from its scope.

        The server keeps the scope until the next request of the connection. With the context in it, some dozen busy
        connections would hold enough objects for the garbage collector to run in each turn of the event loop.
        """
        scope.pop(self.scope_key, None)
        if scope.get(CURRENT) is self:
            del scope[CURRENT]

    def begin(self, scope: Scope) -> AuthContext:
        """Return the context of a request that this KeyAuth now handles.

        Raises:
            RuntimeError: If the application is served in another event loop than it was started in.
        """
        context: AuthContext = scope[self.scope_key]
        if context.is_loop_unknown:  # for each request, the check takes too long: a system call on Python 3.11
            self._event_loop.check()
        scope[CURRENT] = self
        return context

    def takes_key(self, context: AuthContext, scope: Scope) -> bool:
        """Return whether a request's route takes an API key.

        A response may have been sent before our dependency was called: to a body that is not JSON, for instance.
        """
        if context.takes_key:
            return True
        dependant = find_dependant(scope)
        return dependant is not None and any(
            getattr(inner.call, "handler", None) is self and inner.call.takes_key
            for inner in iterate_dependants(dependant)
        )

    def client_address(self, connection: HTTPConnection) -> ClientAddress | None:
        """Return the client's address as blocks and allow lists use it, or None if the server gives none.

        It is not resolved again: a server may append the trailers of a chunked body to the headers, and they must not
        extend what a proxy said.
        """
        return self.get_context(connection).address

    def get_context(self, connection: HTTPConnection) -> AuthContext:
        """Return the context of a request.

        Raises:
            RuntimeError: If KeyAuth is not installed on the application, or the request is over.
        """
        scope = connection.scope
        context: AuthContext | None = scope.get(self.scope_key)
        is_installed = scope.get("app") in self.installed_on
        if context is None and is_installed:
            raise RuntimeError("The request is over. Read what you need of it before the response is complete.")
        if context is None or not is_installed:
            # Also if the app is mounted in one that has KeyAuth: nothing would turn its refusals into responses.
            raise RuntimeError(
                "KeyAuth is not installed on this app. Call auth.install(app) once, right after creating it."
            )
        if context.is_loop_unknown:  # as in ``begin``
            self._event_loop.check()
        scope[CURRENT] = self
        return context

    def bind(self, error: KeyAuthError, context: AuthContext, scope: Scope) -> None:
        """Make ``error.problem()`` return what ``respond`` would send."""
        self._find_mistake(error, scope)
        self._problems.bind(error, context)

    def respond(self, error: KeyAuthError, context: AuthContext, scope: Scope) -> ProblemResponse:
        """Return the response to an error, and report it unless it ends a request that was admitted."""
        self._find_mistake(error, scope)
        if isinstance(error, RateLimitExceeded) and error.evidence is not None:
            context.key, context.decision = error.evidence  # a reservation's; the headers state its limits
            context.states = error.evidence[1].states
        response = self._problems.response(error, context)
        if error._is_reported:
            return response
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
        # The context keeps the error. Its traceback, and that of the error that it replaced, keep all frames, including
        # the context's: every refusal would leave a cycle to the garbage collector.
        error.__traceback__ = error.__context__ = None
        return response

    def report_ended(self, error: KeyAuthError, context: AuthContext, scope: Scope) -> None:
        """Report that a request was ended while it ran."""
        key = context.key
        self._observer.ended(
            find_problem_type(error).code,
            method=scope.get("method", "WEBSOCKET"),
            path=scope["path"],
            address=None if context.address is None else context.address.text,
            key_id=None if key is None else key.id,
        )

    def body_of(self, error: KeyAuthError) -> bytes:
        """Return the problem details of an error, as one line of JSON."""
        return self._problems.body(error)

    def _find_mistake(self, error: KeyAuthError, scope: Scope) -> None:
        """Set on an error what was sent in place of a key."""
        if isinstance(error, MissingApiKey | MissingCredentials) and error.mistake is None:
            error.mistake = self._misplaced_keys.find_mistake(dict(scope["headers"]), scope.get("query_string", b""))

    async def handle(self, connection: HTTPConnection, error: KeyAuthError) -> Response | None:
        """Return the response to an error, or None if a WebSocket was closed instead."""
        response = self.respond(error, self.get_context(connection), connection.scope)
        # The type first: both classes are abstract, so isinstance takes as long as everything above.
        if connection.scope["type"] == "websocket" and isinstance(connection, WebSocket):
            is_open = connection.application_state is not WebSocketState.CONNECTING
            if is_open or not can_answer_upgrade(connection.scope):
                await connection.close(WS_POLICY_VIOLATION, response.code)
                return None
        return response

    async def refuse(
        self, error: KeyAuthError, context: AuthContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send the refusal as the application's exception handler does, even if that is a custom one.

        A WebSocket gets an HTTP response if the server supports it, and is closed otherwise.
        """
        handlers = getattr(scope.get("app"), "exception_handlers", {})
        handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), handle_error)
        if handler is not handle_error:
            self.bind(error, context, scope)
            await ExceptionMiddleware(_raising(error), handlers)(scope, receive, send)
            return
        response = self.respond(error, context, scope)
        if scope["type"] == "http" or can_answer_upgrade(scope):
            await response(scope, receive, send)
        else:
            await receive()  # websocket.connect; nothing may be sent before it
            await send({"type": "websocket.close", "code": WS_POLICY_VIOLATION, "reason": response.code})


async def handle_error(connection: HTTPConnection, error: KeyAuthError) -> Response | None:
    """Handle an error for an application, by the KeyAuth that handled the request last, since it raised the error."""
    handler: RequestHandler | None = connection.scope.get(CURRENT)
    if handler is None:
        raise error  # raised by the application itself, on a route that no KeyAuth handles
    return await handler.handle(connection, error)


def _raising(error: KeyAuthError) -> ASGIApp:
    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    return fail


def can_answer_upgrade(scope: Scope) -> bool:
    """Return whether the server can answer a WebSocket's upgrade with an HTTP response (ASGI's denial extension)."""
    return "websocket.http.response" in scope.get("extensions", {})
