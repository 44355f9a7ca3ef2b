"""The body reader: a body that is too large is not read to its end."""

from typing import Any

import pytest
from starlette.requests import Request

from fastapi_keyauth.http.routers.bodies import BodyTooLarge, read_body


class Upload:
    """A request whose body arrives in chunks. It counts those that were read."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)
        self.read_count = 0

    async def receive(self) -> dict[str, Any]:
        chunk = self._chunks.pop(0)
        self.read_count += 1
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks)}

    @property
    def request(self) -> Request:
        return Request({"type": "http", "method": "POST", "headers": []}, self.receive)


async def test_a_body_of_the_maximum_length_is_returned_completely() -> None:
    assert await read_body(Upload(b"abc", b"", b"de").request, 5) == b"abcde"


async def test_the_rest_of_a_body_that_is_too_large_is_not_read() -> None:
    upload = Upload(b"abc", b"def", *[b"x"] * 1000)
    with pytest.raises(BodyTooLarge):
        await read_body(upload.request, 5)
    assert upload.read_count == 2
