"""Startup check: scopes that routes require and the setting ``scopes`` does not have, such as misspelt ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from starlette.applications import Starlette

from fastapi_keyauth.domain.validation import known_scopes
from fastapi_keyauth.http.routes import iterate_routes
from fastapi_keyauth.settings.checks import CheckWarning


def find_unknown_scopes(
    apps: Iterable[Starlette], requirements: Sequence[Callable[..., Any]], catalogue: dict[str, str]
) -> list[CheckWarning]:
    """Return a warning for each scope that routes require of keys and that no key can be given.

    It is a warning and not an error: a key that was given the scope before it was removed from the setting still holds
    it, and so does one with ``*``.

    Args:
        apps: The applications.
        requirements: The dependencies that check a key's scopes. Those of sessions alone are left out: a resolver
            gives sessions whatever scopes it likes.
        catalogue: The setting ``scopes``. If it is empty, any scope may be granted.
    """
    if not catalogue:
        return []
    known = known_scopes(catalogue)
    found: dict[str, list[str]] = {}
    for app in apps:
        for path, dependant in iterate_routes(app):
            for scope in _required(dependant, requirements, ()):
                if scope not in known and path not in found.setdefault(scope, []):
                    found[scope].append(path)
    return [CheckWarning.of("unknown_scope", scope=scope, paths=", ".join(paths)) for scope, paths in found.items()]


def _required(dependant: Any, requirements: Sequence[Callable[..., Any]], outer: tuple[str, ...]) -> Iterator[str]:
    """Yield the scopes that reach our dependencies: those of ``Security`` around them, at any depth."""
    scopes = (*outer, *(dependant.own_oauth_scopes or ()))
    if any(dependant.call is requirement for requirement in requirements):
        yield from scopes
    for inner in dependant.dependencies:
        yield from _required(inner, requirements, scopes)
