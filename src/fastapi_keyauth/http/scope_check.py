"""Scopes that routes ask for and that the application's catalogue does not have: most often misspelt ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fastapi import routing
from starlette.applications import Starlette

from fastapi_keyauth.domain.validation import known_scopes
from fastapi_keyauth.settings.checks import CheckWarning


def find_unknown_scopes(
    apps: Iterable[Starlette], requirements: Sequence[Callable[..., Any]], catalogue: dict[str, str]
) -> list[CheckWarning]:
    """One warning for each scope that no key can be given though routes want it of keys.

    It is a warning and no error: a key that was given the scope before the catalogue lost it still holds it, and so
    does one with ``*``.

    Args:
        apps: the applications.
        requirements: the dependencies that look at a key's scopes. Those of sessions alone are left out: a resolver
            gives sessions whatever scopes it likes.
        catalogue: the setting ``scopes``; where it is empty any scope may be granted.
    """
    if not catalogue:
        return []
    known = known_scopes(catalogue)
    found: dict[str, list[str]] = {}
    for app in apps:
        for path, dependant in _routes(app):
            for scope in _wanted(dependant, requirements, ()):
                if scope not in known and path not in found.setdefault(scope, []):
                    found[scope].append(path)
    return [CheckWarning.of("unknown_scope", scope=scope, paths=", ".join(paths)) for scope, paths in found.items()]


def _routes(app: Starlette) -> Iterator[tuple[str, Any]]:
    """Path and dependencies of each route. FastAPI keeps included routers as they are since 0.137."""
    expand: Callable[[Any], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)
    for route in expand(app.router.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None:
            yield route.path, dependant


def _wanted(dependant: Any, requirements: Sequence[Callable[..., Any]], outer: tuple[str, ...]) -> Iterator[str]:
    """The scopes that reach our dependencies: those of ``Security`` around them, at any depth."""
    scopes = (*outer, *(dependant.own_oauth_scopes or ()))
    if any(dependant.call is requirement for requirement in requirements):
        yield from scopes
    for inner in dependant.dependencies:
        yield from _wanted(inner, requirements, scopes)
