"""CORS preflight requests (Fetch standard, section 3.2.2)."""

from typing import NamedTuple

from starlette.types import Scope

from fastapi_keyauth.http.headers import find_header


class Preflight(NamedTuple):
    """A preflight request.

    Attributes:
        origin: The origin of the page that asks.
        method: The method that it is going to use.
        headers: The headers that it is going to send, as it lists them. None if it lists none.
    """

    origin: str
    method: bytes
    headers: bytes | None

    def announces(self, names: frozenset[bytes]) -> bool:
        """Return whether one of the headers (lower case) is among those that the page is going to send."""
        return not names.isdisjoint(name.strip(b" \t") for name in (self.headers or b"").lower().split(b","))


def read_preflight(scope: Scope) -> Preflight | None:
    """Return the preflight that a request is, or None if it is another request."""
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return None
    headers = scope["headers"]
    origin = find_header(headers, b"origin")
    method = find_header(headers, b"access-control-request-method")
    if origin is None or method is None:
        return None
    return Preflight(origin.decode("latin-1"), method, find_header(headers, b"access-control-request-headers"))
