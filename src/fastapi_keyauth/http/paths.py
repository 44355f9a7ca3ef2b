"""Paths of ASGI scopes."""

from starlette.types import Scope


def path_in_app(scope: Scope) -> str:
    """Return the path that routing will match: without the path that the application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path
