"""Raw headers of an ASGI message."""

from fastapi_keyauth.auth.credentials import Headers


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header, or None. Several values are joined, so none of them passes for the only one."""
    found = None
    for present, value in headers:
        if present == name:
            if found is not None:
                # In one step: a server may limit neither their number nor their size, and adding to bytes copies them.
                return b", ".join([value for present, value in headers if present == name])
            found = value
    return found
