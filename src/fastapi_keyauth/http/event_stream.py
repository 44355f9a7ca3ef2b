"""The end of an event stream (``text/event-stream``) that is cut: with an event ``error``, if nothing else is begun.

A client dispatches an event when it receives the blank line after it. It discards the data of an incomplete event only
if the stream ends: a blank line would deliver a part as the whole, and more data would be added to the same event.
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re

from fastapi_keyauth.http.cors import RawHeaders

START = b"\n\n"
"""The tail of a stream of which nothing was sent. An event may begin there, as after a blank line."""
TAIL = 256
"""Number of bytes that are kept. If an event began before them, it counts as one with data."""

_CONTENT_TYPE = b"text/event-stream"
_LINE_END = rb"(?:\r\n|\n|\r(?!\n))"
_AFTER_BLANK_LINE = re.compile(rb".*%b%b(.*)" % (_LINE_END, _LINE_END), re.DOTALL)
_NO_DATA = re.compile(rb"(?:(?::|event:)[^\r\n]*(?:%b|\Z))*" % _LINE_END)
"""Lines that do no harm: comments, and the name of an event, which the next name replaces."""


def is_event_stream(headers: RawHeaders) -> bool:
    """Return whether a response with these headers is an event stream to which an event can be added."""
    found = {name.lower(): value for name, value in headers}
    is_plain = b"content-encoding" not in found and b"content-length" not in found
    return is_plain and found.get(b"content-type", b"").lower().startswith(_CONTENT_TYPE)


def add_tail(tail: bytes, part: bytes) -> bytes:
    """Return the last bytes of a stream.

    Args:
        tail: The last bytes before, ``START`` at first.
        part: The bytes that are sent now.
    """
    return bytes(part[-TAIL:]) if len(part) >= TAIL else (tail + part)[-TAIL:]


def error_event(tail: bytes, body: bytes) -> bytes | None:
    """Return an event ``error``, and what must be sent before it to end the current line.

    Args:
        tail: The last bytes of the stream.
        body: The data of the event, one line.

    Returns:
        None if a part of another event was sent, such as its data or its id.
    """
    begun = _AFTER_BLANK_LINE.fullmatch(tail)
    if begun is None or not _NO_DATA.fullmatch(begun[1]):
        return None
    line_end = b"" if not begun[1] or begun[1].endswith((b"\r", b"\n")) else b"\n"
    return line_end + b"event: error\ndata: " + body + b"\n\n"
