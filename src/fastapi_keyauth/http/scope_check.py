"""Startup check: scopes that routes require and the setting ``scopes`` does not have, such as misspelled ones."""

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.applications import Starlette

from fastapi_keyauth.domain.validation import known_scopes
from fastapi_keyauth.http.request_handler import RequestHandler
from fastapi_keyauth.http.routes import iterate_routes
from fastapi_keyauth.settings.check_warnings import CheckWarning


def find_unknown_scopes(
    apps: Iterable[Starlette], handler: RequestHandler, catalog: dict[str, str]
) -> list[CheckWarning]:
    """Return a warning for each scope that routes require of keys and that no key can be given.

    It is a warning and not an error: a key that was given the scope before it was removed from the setting still holds
    it, and so does one with ``*``.

    Args:
        apps: The applications.
        handler: The request handler of the KeyAuth whose dependencies are checked. Those on sessions alone are left
            out: a resolver gives sessions whatever scopes it likes.
        catalog: The setting ``scopes``. If it is empty, any scope may be granted.
    """
    if not catalog:
        return []
    known = known_scopes(catalog)
    found: dict[str, list[str]] = {}
    for app in apps:
        for path, dependant in iterate_routes(app):
            for scope in _required(dependant, handler, ()):
                if scope not in known and path not in found.setdefault(scope, []):
                    found[scope].append(path)
    return [CheckWarning.of("unknown_scope", scope=scope, paths=", ".join(paths)) for scope, paths in found.items()]


def _required(dependant: Any, handler: RequestHandler, outer: tuple[str, ...]) -> Iterator[str]:
    """Yield the scopes of our dependencies: their own, and those of ``Security`` around them, at any depth."""
    scopes = (*outer, *(dependant.own_oauth_scopes or ()))
    if getattr(dependant.call, "handler", None) is handler and dependant.call.takes_key:
        yield from (*dependant.call.required_scopes, *scopes)
    for inner in dependant.dependencies:
        yield from _required(inner, handler, scopes)
