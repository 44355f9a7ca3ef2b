"""FastAPI's routes and the trees of their dependencies, as startup checks and the middleware read them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi import routing
from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import Scope

# FastAPI keeps included routers as they are since 0.137; this expands them.
_expand: Callable[[Any], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)


def iterate_routes(app: Starlette) -> Iterator[tuple[str, Any]]:
    """Yield the path and the dependant of each route of an application."""
    for route in _expand(app.router.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None:
            yield route.path, dependant


def find_dependant(scope: Scope) -> Any:
    """Return the dependant of the route that a request was routed to, or None if there is no such route yet."""
    # Since 0.137 a route of an included router has its final dependencies in a context beside it.
    context = scope.get("fastapi", {}).get("effective_route_context")
    return getattr(scope.get("route") if context is None else context, "dependant", None)


def foresee_dependant(app: Any, scope: Scope) -> Any:
    """Return the dependant of the route that an application is going to choose for a request, or None."""
    for route in _expand(getattr(app, "routes", ())):
        match, child_scope = route.matches(scope)
        if match is Match.FULL:
            dependant = getattr(route, "dependant", None)
            if dependant is None:  # perhaps of a mounted application
                return foresee_dependant(getattr(route, "app", None), {**scope, **child_scope})
            return dependant
    return None


def iterate_dependants(dependant: Any) -> Iterator[Any]:
    """Yield a dependant and all those below it."""
    yield dependant
    for inner in dependant.dependencies:
        yield from iterate_dependants(inner)
