"""An event stream that is cut anywhere delivers no part of an event as the whole, and says why if that is possible."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from fastapi_keyauth.http.event_stream import START, TAIL, add_tail, error_event, is_event_stream

BODY = b'{"code": "revoked_api_key"}'
TOKEN = b"event: token\nid: 7\ndata: one\ndata: two"
STREAM = b"\n\n".join((b": hello", TOKEN, b": ping\n: pong", b"retry: 3000\ndata: three", b"data", b": end\n"))


@pytest.fixture(params=["openai", "anthropic"])
def decoder(request: pytest.FixtureRequest) -> Any:
    """Return the decoder of a vendor's SDK."""
    # Private: the public ones read streams of their own vendors' answers.
    # Imported here, since each process of `make test` imports all test modules, and each SDK takes a second.
    return importlib.import_module(f"{request.param}._streaming").SSEDecoder


def _read(decoder: Any, sent: bytes) -> list[tuple[str | None, str, str | None]]:
    """Return name, data and id of each event that a client dispatches."""

    def parts() -> Iterator[bytes]:
        yield sent

    return [(event.event, event.data, event.id) for event in decoder().iter_bytes(parts())]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_stream_that_is_cut_anywhere_delivers_whole_events_only(decoder: Any, line_end: bytes, size: int) -> None:
    stream = STREAM.replace(b"\n", line_end)
    told = 0
    for cut in range(len(stream) + 1):
        sent, tail = stream[:cut], START
        for start in range(0, cut, size):
            tail = add_tail(tail, sent[start : min(start + size, cut)])
        whole = _read(decoder, sent)
        event = error_event(tail, BODY)
        if event is None:
            continue  # whatever was sent of an event is discarded when the stream ends
        *before, (name, data, _) = _read(decoder, sent + event)
        assert (before, name, data) == (whole, "error", BODY.decode())
        told += 1
    assert told > 30


@pytest.mark.parametrize(
    ("sent", "is_told"),
    [
        (b"", True),
        (b"data: 1\n\n", True),
        (b"data: 1\r\n\n", True),
        (b"data: 1\n\r\n", True),
        (b"data: 1\n\n: ping\n", True),
        (b"data: 1\n\n: pi", True),
        (b"data: 1\n\nevent: token\n", True),
        (b"data: 1\n\nevent: tok", True),
        (b"data: 1\r\n", False),
        (b"data: 1\n", False),
        (b"data: 1", False),
        (b"data: 1\n\nda", False),
        (b"data: 1\n\nid: 12", False),
        (b"data: 1\n\nretry: 30", False),
        (b"data: 1\n\nevent: token\nid: 12\n", False),
        (b": " + b"x" * TAIL, False),
    ],
)
def test_the_event_is_sent_unless_a_part_of_another_was(sent: bytes, is_told: bool) -> None:
    assert (error_event(add_tail(START, sent), BODY) is not None) == is_told


def test_the_name_of_the_event_replaces_that_of_one_that_was_begun(decoder: Any) -> None:
    """A blank line in between would have these clients deliver the event that was begun, without data."""
    sent = b"data: 1\n\nevent: token\n"
    assert _read(decoder, sent + b"\n")[1:] == [("token", "", None)]
    event = error_event(add_tail(START, sent), BODY)
    assert event is not None
    assert _read(decoder, sent + event)[1:] == [("error", BODY.decode(), None)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"Content-Type", b"text/event-stream; charset=utf-8")], True),
        ([(b"content-type", b"Text/Event-Stream")], True),
        ([(b"content-type", b"text/plain")], False),
        ([], False),
        ([(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")], False),
        ([(b"content-type", b"text/event-stream"), (b"Content-Length", b"100")], False),
    ],
)
def test_an_event_can_be_added_to_plain_event_streams(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_event_stream(headers) == expected
