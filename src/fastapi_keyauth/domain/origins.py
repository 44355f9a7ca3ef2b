"""Browser origins: ``scheme://host[:port]`` as browsers serialize them (RFC 6454 section 6.2)."""

import re

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
MAX_ORIGIN_LENGTH = 300


def parse_origin(text: str) -> str:
    """Return an origin in the form that browsers send: lower case, without the default port.

    Raises:
        ValueError: If it is not an origin, for example because it has a path, a query or a trailing slash.
    """
    match = _ORIGIN.fullmatch(text.lower()) if len(text) <= MAX_ORIGIN_LENGTH else None
    if match is None:
        raise ValueError("an origin is scheme://host or scheme://host:port, without a path or a trailing slash")
    scheme, host, port = match.groups()
    if port is None or int(port) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    if not 0 < int(port) < 65536:
        raise ValueError("an origin's port is a number from 1 to 65535")
    return f"{scheme}://{host}:{int(port)}"
