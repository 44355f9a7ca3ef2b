"""Notices a server that rewrites the peer's address before we see it."""

from starlette.types import Scope

from fastapi_keyauth.settings.checks import CheckWarning

LOOK_AT = 1000
"""Requests that are looked at: a server that rewrites does so from the first one that comes through a proxy."""


class ProxyHeaderCheck:
    """Looks at the first requests for a peer that ``X-Forwarded-For`` has made up, and warns once.

    uvicorn (``--proxy-headers``, which is its default) replaces the peer by an entry of that header and, where the
    entry names no port, as from nearly all proxies, writes port 0: no connection comes from there.
    """

    def __init__(self) -> None:
        self._left = LOOK_AT

    def look(self, scope: Scope) -> bool:
        """Look at one more request. False: there is no need to look at another."""
        client, server = scope.get("client"), scope.get("server")
        if client and client[1] == 0 and any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
            # On a Unix socket, which has no port, there is no other way to an address.
            if server and server[1] is not None:
                CheckWarning.of("peer_replaced").warn()
            return False
        self._left -= 1
        return self._left > 0
