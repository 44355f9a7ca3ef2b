"""Runtime check: a server that replaces the peer's address, or does not know that clients use https."""

from collections.abc import Collection

from starlette.types import Scope

from fastapi_keyauth.settings.check_warnings import CheckWarning

MAX_CHECKED = 1000
"""Requests that are checked: what is wrong shows with the first one that comes through a proxy."""


class ProxyHeaderCheck:
    """Checks the first requests for proxy headers that the server believes or ignores, and warns once of each.

    - uvicorn (``--proxy-headers``, its default) replaces the peer by an entry of ``X-Forwarded-For`` and, if the entry
      has no port, as from nearly all proxies, writes port 0: no connection comes from there. If ``trusted_proxies`` is
      empty, that is a mistake.
    - A proxy that terminates TLS says so in ``X-Forwarded-Proto``. A server that ignores it redirects to ``http://``.

    Args:
        is_behind_proxies: Whether ``trusted_proxies`` is set. Then it does no harm if the server replaces the peer.
        silenced_checks: The setting of this name.
    """

    def __init__(self, is_behind_proxies: bool, silenced_checks: Collection[str] = ()) -> None:
        self._silenced_checks = silenced_checks
        self._left = MAX_CHECKED
        self._checks_peer = not is_behind_proxies
        self._checks_scheme = True

    def check(self, scope: Scope) -> bool:
        """Check one more request. Return whether the next one is to be checked, too."""
        headers = scope["headers"]
        client, server = scope.get("client"), scope.get("server")
        if self._checks_peer and client and client[1] == 0 and any(name == b"x-forwarded-for" for name, _ in headers):
            # On a Unix socket, which has no port, there is no other way to an address.
            if server and server[1] is not None:
                CheckWarning.of("peer_replaced").warn(self._silenced_checks)
            self._checks_peer = False
        if self._checks_scheme and scope.get("scheme") == "http" and (b"x-forwarded-proto", b"https") in headers:
            CheckWarning.of("https_ignored").warn(self._silenced_checks)
            self._checks_scheme = False
        self._left -= 1
        return self._left > 0 and (self._checks_peer or self._checks_scheme)
