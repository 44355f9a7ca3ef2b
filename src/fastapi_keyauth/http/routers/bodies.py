"""Bodies of requests, read no further than they may be long."""

from starlette.requests import Request


class BodyTooLarge(Exception):
    """A body that is longer than it may be."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        BodyTooLarge: If it is longer than ``max_bytes``. The rest is not read.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge
    return bytes(body)
