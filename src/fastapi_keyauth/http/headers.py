"""Raw headers of an ASGI message."""

from fastapi_keyauth.auth.credentials import Headers


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """A header's value; several are joined, so that a doubled one equals none that is allowed. None where absent."""
    found = None
    for present, value in headers:
        if present == name:
            if found is not None:
                # At once: a server may bound neither their number nor their size, and adding to bytes copies them all.
                return b", ".join([value for present, value in headers if present == name])
            found = value
    return found
