"""Redaction of whole events, for tools that send or write what they find in requests and stack frames."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from fastapi_keyauth.domain.tokens import redact

Event = TypeVar("Event")

MAX_DEPTH = 30
"""Nested containers that are searched. What lies deeper, as in one that contains itself, is left out."""
TOO_DEEP = "<too deep>"


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
        A copy in which tokens are cut down to their public part, as by ``redact``. Tokens of imported keys have no
        known form and are not found.
    """
    return cast("Event", _redact(event, MAX_DEPTH))


def _redact(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("latin-1")).encode("latin-1")
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return value
    if not depth:
        return TOO_DEEP
    if isinstance(value, Mapping):
        return {_redact(name, depth - 1): _redact(inner, depth - 1) for name, inner in value.items()}
    kind = type(value) if type(value) in (list, tuple, set, frozenset) else list
    return kind(_redact(inner, depth - 1) for inner in value)
