"""Request bodies of limited size."""

from starlette.requests import Request


class BodyTooLarge(Exception):
    """A body that exceeds its maximum size."""


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
