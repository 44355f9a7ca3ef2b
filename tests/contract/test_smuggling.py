"""Headers that parsers may read differently: repeated, folded, misspelled, in trailers; on real servers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.auth.request_context import AuthContext
from tests.helpers.served import exchange, request, served, status_of
from tests.helpers.stage import Issued, OpenScene, Scene

STACKS = ("sqlite-memory",)  # what is tried here ends before the store and the limiter


@pytest.fixture(params=["h11", "httptools"])
async def behind(request: pytest.FixtureRequest, open_scene: OpenScene) -> AsyncIterator[tuple[Scene, Issued, int]]:
    """Yield a scene behind a real server, one of its keys, and the port."""
    async with (
        open_scene(block_after_failures=1000, trusted_proxies=["127.0.0.1"]) as scene,
        served(scene.app, request.param) as port,
    ):
        yield scene, await scene.key(), port


def lines_that_are_one_header(token: bytes) -> list[bytes]:
    """Return lines that every HTTP parser reads as `api-key: <token>`."""
    return [
        b"api-key: " + token,
        b"API-KEY:" + token,
        b"Api-Key:  \t" + token + b" \t ",
        b"authorization: bEaReR " + token,
    ]


def lines_that_are_no_key(token: bytes) -> list[tuple[bytes, ...]]:
    """Return lines that some parser might read as a key. Each must be refused, by the server or by us."""
    key = b"api-key: " + token
    other = b"api-key: " + token[:-1] + b"!"
    return [
        (key, key),
        (key, other),
        (other, key),
        (key, b"authorization: Bearer " + token[:-1] + b"!"),
        (b"api-key: " + token + b", " + token,),
        (b"api-key: " + token + b"," + token,),
        (b"api-key : " + token,),
        (b" api-key: " + token,),
        (b"api_key: " + token,),
        (b"api-key\x00: " + token,),
        (b"api-key: " + token + b"\x00",),
        (b"api-key: \x00" + token,),
        (b"api-key: " + token[:30] + b"\x0b" + token[30:],),
        (b"api-key: " + token[:30] + b"\r\n " + token[30:],),
        (b"api-key: \xef\xbb\xbf" + token,),
        (b"api-key: \xc2\xa0" + token,),
        (b"api-key: %6b" + token[1:],),
        (b'api-key: "' + token + b'"',),
        (b"api-key: Bearer " + token,),
        (b"x-api-key: " + token,),
        (b"x-original-api-key: " + token,),
        (b"cookie: api-key=" + token,),
        (b"authorization: Basic " + token,),
        (b"authorization: Bearer" + token,),
        (b"authorization: Bearer, Bearer " + token,),
        (b"authorization: Basic x, Bearer " + token,),
        (b"proxy-authorization: Bearer " + token,),
        (b"x-forwarded-authorization: Bearer " + token,),
    ]


async def test_only_what_every_reader_takes_for_the_key_is_the_key(behind: tuple[Scene, Issued, int]) -> None:
    _, key, port = behind
    token = key.token.encode()
    for line in lines_that_are_one_header(token):
        assert status_of(await exchange(port, request(line))) == 200, line
    for lines in lines_that_are_no_key(token):
        answer = await exchange(port, request(*lines))
        assert status_of(answer) in (400, 401), (lines, answer)
        assert token[20:60] not in answer
    for path in (b"/models?api-key=" + token, b"/models?access_token=" + token, b"/models;api-key=" + token):
        assert status_of(await exchange(port, request(path=path))) in (401, 404)


async def test_a_trailer_moves_neither_the_caller_nor_the_address(
    behind: tuple[Scene, Issued, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uvicorn with httptools adds trailers to the headers of the running request. For those that arrive together with
    the rest, see docs/explanation/security.md. Values read at the start of a request must not change until its end."""
    scene, key, port = behind
    has_begun = asyncio.Event()
    real = scene.auth._parts.request_handler.open_context

    def begin(scope: Any) -> AuthContext:
        has_begun.set()
        return real(scope)

    monkeypatch.setattr(scene.auth._parts.request_handler, "open_context", begin)
    sent = request(
        b"authorization: Bearer " + (await scene.session()).encode(),
        b"x-forwarded-for: 203.0.113.7",
        b"transfer-encoding: chunked",
        b"content-type: application/json",
        method=b"PATCH",
        path=b"/api-keys/" + key.id.encode(),
        body=b'13\r\n{"name": "renamed"}\r\n0\r\n',
    )
    answer = await exchange(port, sent, b"x-forwarded-for: 192.0.2.66\r\napi-key: wrong\r\n\r\n", has_begun)
    assert status_of(answer) == 200, answer
    events = await scene.auth.keys.events(key.id)
    assert (events.items[0].event, events.items[0].address) == ("updated", "203.0.113.7")


async def test_a_body_with_two_lengths_is_not_a_second_request(behind: tuple[Scene, Issued, int]) -> None:
    """Both length and chunks, or two lengths: at most one request gets a response, never the one in the body."""
    _, key, port = behind
    inner = b"GET /models HTTP/1.1\r\nhost: x\r\napi-key: " + key.token.encode() + b"\r\n\r\n"
    both = (b"content-length: 4", b"transfer-encoding: chunked")
    twice = (b"content-length: 0", b"content-length: %d" % len(inner))
    for lines, body in ((both, b"0\r\n\r\n" + inner), (twice, inner), ((b"transfer-encoding: xchunked",), inner)):
        answer = await exchange(port, request(*lines, method=b"POST", path=b"/notes", body=body))
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert b" 200 " not in answer.partition(b"\r\n")[0]


def test_the_middleware_itself_takes_no_second_spelling(make_auth: type[KeyAuth]) -> None:
    """Every ASGI server sends names in lower case; only the exact name is read."""
    reader = make_auth()._parts.request_handler._credentials

    def read(name: bytes) -> str | None:
        headers = [(name, b"x")]
        return reader.read(headers)[0].token

    assert read(b"api-key") == "x"
    for name in (b"API-KEY", b"api_key", b"api-key ", b" api-key", b"api\xe2\x80\x90key"):
        assert read(name) is None
