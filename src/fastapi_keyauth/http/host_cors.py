"""CORS rules of the host application: where they apply, and what they allow."""

import contextlib
import copy
import functools
import inspect
from collections import deque
from collections.abc import Iterator
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request, empty_send
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_keyauth.auth.credentials import Headers

ALLOW_ORIGIN = b"access-control-allow-origin"
MAX_CALLABLES = 100
"""Callables around ``send`` that are examined; middlewares are a dozen at most."""


def allows_origin(headers: Headers, origin: str) -> bool:
    """Return whether a response's headers let pages of this origin read it."""
    allowed = [value.strip() for name, value in headers if name.lower() == ALLOW_ORIGIN]
    return allowed in ([b"*"], [origin.encode("latin-1")])


def has_cors_middleware(app: Any) -> bool:
    """Return whether ``CORSMiddleware``, or a subclass of it, was added to this application itself."""
    layers = getattr(app, "user_middleware", ())
    return any(isinstance(layer.cls, type) and issubclass(layer.cls, CORSMiddleware) for layer in layers)


def with_host_cors(app: ASGIApp, refusal: ASGIApp) -> ASGIApp:
    """Return a refusal as the ``CORSMiddleware`` inside an application completes it, which would not see it otherwise.

    Args:
        app: The application. Starlette's middlewares keep what is inside in ``app``.
        refusal: What responds in place of the application.
    """
    layer: Any = app
    while layer is not None and not isinstance(layer, CORSMiddleware):
        layer = getattr(layer, "app", None)
    if layer is None:
        return refusal
    cors = copy.copy(layer)
    cors.app = refusal
    return cors


def answers_preflights(app: Any, scope: Scope) -> bool:
    """Return whether a ``CORSMiddleware`` of the application, or of one mounted at this path, answers preflights."""
    if isinstance(app, CORSMiddleware) or has_cors_middleware(app):
        return True
    for route in getattr(app, "routes", None) or ():
        if isinstance(route, Mount):
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                return answers_preflights(route.app, {**scope, **child_scope})
    return False


def is_inside_credentials(receive: Receive, send: Send) -> bool:
    """Return whether a ``CORSMiddleware`` outside of us adds ``Access-Control-Allow-Credentials`` to every response.

    One around the whole application, or that of an application in which ours is mounted, is beyond our reach: the only
    sign of it is its function among those that ``send`` calls. It adds the header to responses of all origins. A
    ``BaseHTTPMiddleware`` between the two has a queue in place of ``send``, and keeps the real one in the request that
    ``receive`` belongs to. Before Starlette 1 it did not, so there it counts as such a ``CORSMiddleware``.
    """
    return any(
        (isinstance(owner, CORSMiddleware) and owner.allow_credentials)
        or (isinstance(owner, Request) and owner._send is empty_send)
        for owner in (getattr(function, "__self__", None) for function in _callables_inside(receive, send))
    )


def _callables_inside(*functions: Any) -> Iterator[Any]:
    """Yield functions and all that they are made of, nearest first."""
    found, seen = deque(functions), set[int]()
    while found and len(seen) < MAX_CALLABLES:
        function = found.popleft()
        if id(function) not in seen and callable(function):
            seen.add(id(function))
            yield function
            found += _parts_of(function)


def _parts_of(function: Any) -> Iterator[Any]:
    """Yield arguments of a partial, what a closure holds, and the functions that a method's object holds."""
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a cell that is still empty
            yield cell.cell_contents
    owner = getattr(function, "__self__", function)
    for name, value in getattr(owner, "__dict__", {}).items():
        # Other objects that can be called, such as the application inside, lead away from the server.
        if "send" in name or inspect.isroutine(value) or isinstance(value, functools.partial):
            yield value
