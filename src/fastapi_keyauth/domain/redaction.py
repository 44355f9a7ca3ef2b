"""Redaction of texts, and of whole events for tools that send what they find in requests and stack frames."""

import re
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from typing import Any, TypeVar, cast

MIN_SECRET_RUN = 16
"""Length of a run of characters that may be a secret if they mix upper case, lower case and digits."""
MIN_ANY_RUN = 20
"""Length of a run of characters that may be a secret, such as one in hexadecimal digits or Base64."""
MAX_DEPTH = 30
"""Nested containers that are searched. What lies deeper, as in one that contains itself, is left out."""
TOO_DEEP = "<too deep>"

_HEX_OF_ALPHANUMERIC = r"(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])"
_ESCAPE = r"(?:%(?:25){0,3}|\\{1,4}(?:x|u00))"
"""Before two hexadecimal digits: percent-encoding, also repeated, and escapes of JSON and of Python's ``repr``."""
_ALPHANUMERIC = rf"(?:[0-9A-Za-z]|{_ESCAPE}{_HEX_OF_ALPHANUMERIC})"
_PATTERN = re.compile(
    r"[0-9A-Za-z]{1,16}_[a-z0-9]{1,16}_([0-9A-Za-z]{12})_[0-9A-Za-z]{8,}"  # a token: its id may be shown
    r"|ks_[0-9A-Za-z]{16,}"  # a session token
    rf"|{_ALPHANUMERIC}{{{MIN_SECRET_RUN},}}"  # what could be the secret of a token that was damaged
)
_ESCAPED = re.compile(rf"{_ESCAPE}({_HEX_OF_ALPHANUMERIC})")
_WORDS = re.compile(r"(?:[A-Z]{0,5}[a-z]{2,}+)+[A-Z]{0,5}")  # such as a name in CamelCase
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")

_KINDS: dict[type, Callable[[Iterable[Any]], Any]] = {kind: kind for kind in (tuple, set, frozenset)}

Event = TypeVar("Event")


def redact(text: str, *, keep_digests: bool = False) -> str:
    """Return a text in which every token is replaced by its id, and everything else that could be a secret by a mark.

    A run of letters and digits could be a secret, wherever it stands, if it has at least 20 characters, or at least 16
    of upper case, lower case and digits. So no secret is left of a token that was cut off, mistyped, wrapped over two
    lines, or encoded: in percent-encoding, as ``\\x`` or ``\\u`` escapes, in hexadecimal digits or in Base64. Words,
    also joined in CamelCase, are kept.

    Args:
        text: Any text, such as the path of a request.
        keep_digests: Whether to keep runs of 32, 40 or 64 hexadecimal digits, such as the ids of traces and commits.
            Added in 0.2.
    """

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        if match[1]:
            return f"<token {match[1]}>"
        if found.startswith("ks_"):
            return "<token of a session>"
        if keep_digests and _DIGEST.fullmatch(found):
            return found
        return "<redacted>" if _could_be_secret(_decode(found)) else found

    return _PATTERN.sub(replace, text)


def _decode(run: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), run)


def _could_be_secret(run: str) -> bool:
    if _WORDS.fullmatch(run):
        return False
    is_mixed = not run.isalpha() and not run.isdigit() and not run.islower() and not run.isupper()
    return len(run) >= MIN_ANY_RUN or (len(run) >= MIN_SECRET_RUN and is_mixed)


def redact_event(event: Event, hint: object = None) -> Event:
    """Redact every token in an event, wherever it stands: in headers, local variables, messages, breadcrumbs.

    It has the signature that Sentry calls: ``sentry_sdk.init(before_send=redact_event)``. It works for every tool that
    lets you change what it is about to write. Objects other than text and containers are returned as they are, so call
    it after a tool has turned them into text.

    Added in 0.2.

    Args:
        event: Text, or a container of containers of text. It is not changed.
        hint: Ignored.

    Returns:
        A copy in which tokens are replaced by their ids, and everything else that could be a secret by a mark, as by
        ``redact``. Ids of events, traces and commits are kept.
    """
    return cast("Event", _redact(event, MAX_DEPTH))


def _redact(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value, keep_digests=True)
    if isinstance(value, bytes | bytearray | memoryview):
        return redact(bytes(value).decode("latin-1"), keep_digests=True).encode("latin-1")
    if not isinstance(value, Mapping | list | tuple | set | frozenset | deque | KeysView | ValuesView | ItemsView):
        return value
    if not depth:
        return TOO_DEEP
    if isinstance(value, Mapping):
        return {_redact(name, depth - 1): _redact(inner, depth - 1) for name, inner in value.items()}
    return _KINDS.get(type(value), list)(_redact(inner, depth - 1) for inner in value)
