"""Paths of ASGI scopes."""

from starlette.types import Scope


def path_in_app(scope: Scope) -> str:
    """The path that routing will look at: without what the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path
