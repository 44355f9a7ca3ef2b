"""CORS rules of the host application: where they apply, and what they allow."""

import functools
from collections.abc import Iterator
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, Mount
from starlette.types import Scope, Send

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


def is_inside_credentials(send: Send) -> bool:
    """Return whether a ``CORSMiddleware`` outside of us adds ``Access-Control-Allow-Credentials`` to every response.

    One around the whole application, or that of an application in which ours is mounted, is beyond our reach: the only
    sign of it is its function among those that ``send`` calls. It adds the header to responses of all origins.
    """
    return any(
        isinstance(owner, CORSMiddleware) and owner.allow_credentials
        for owner in (getattr(function, "__self__", None) for function in _callables_inside(send))
    )


def _callables_inside(function: Any) -> Iterator[Any]:
    """Yield a function and all that it was made of: arguments of partials, and what closures hold."""
    found, seen = [function], set[int]()
    while found and len(seen) < MAX_CALLABLES:
        function = found.pop()
        if id(function) in seen or not callable(function):
            continue
        seen.add(id(function))
        yield function
        if isinstance(function, functools.partial):
            found += [function.func, *function.args, *function.keywords.values()]
        for cell in getattr(function, "__closure__", None) or ():
            try:
                found.append(cell.cell_contents)
            except ValueError:  # a cell that is still empty
                continue
