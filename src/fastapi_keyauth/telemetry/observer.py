"""What the parts tell of what happens. It goes to the log, to the counts, and to the ``on_event`` hook if there is one.

Nothing here is called for a request that is admitted.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi_keyauth.domain.events import AuthEvent, EventKind
from fastapi_keyauth.domain.tokens import find_key_id, redact
from fastapi_keyauth.errors import FailedAttempt, KeyAuthError, RateLimitExceeded, TemporarilyUnavailable
from fastapi_keyauth.telemetry.counters import Instruments
from fastapi_keyauth.telemetry.event_hook import EventHook

if TYPE_CHECKING:  # both tell the observer, which asks nothing of them
    from starlette.types import Scope

    from fastapi_keyauth.auth.request_context import Visit
    from fastapi_keyauth.domain.keys import Actor, Key

logger = logging.getLogger("fastapi_keyauth")

MAX_LIMITED = 4096
"""Keys of which this worker knows that it has told of their cap in this hour."""

MAX_PATH = 1000
"""Characters of a path that are logged: a refusal costs nothing, and must not fill a disk at the sender's pace."""
MAX_METHOD = 200
"""The same of a method: a token that was put in its place is shorter, and so cut down to its id."""


class Observer:
    """See the module.

    Args:
        instruments: has the counts.
        hook: None where nobody asked for events.
        now: the time, UTC.
    """

    def __init__(self, instruments: Instruments, hook: EventHook | None, now: Callable[[], datetime]) -> None:
        self.instruments = instruments
        self._counts = instruments.counts
        self._hook = hook
        self._now = now
        self._limited: OrderedDict[str, int] = OrderedDict()
        """Key id to the hour in which its cap was told of."""
        self._away: set[str] = set()

    def refused(self, error: KeyAuthError, code: str, visit: "Visit", scope: "Scope") -> None:
        """A request gets an error for an answer. Why goes to the log; what was sent does not."""
        self._counts.refused[code] += 1
        key_id: str | None = getattr(error, "key_id", None)
        address = None if visit.address is None else visit.address.text
        if logger.isEnabledFor(logging.INFO):
            if isinstance(error, TemporarilyUnavailable) and visit.credentials.token is not None:
                key_id = find_key_id(visit.credentials.token)  # raised where nobody knows for whom
            method, path = redact(scope.get("method", "WEBSOCKET")[:MAX_METHOD]), redact(scope["path"][:MAX_PATH])
            logger.info(
                "refused: %s key=%s address=%s %s %r",
                type(error).__name__,
                key_id,
                address,
                method if method.isalpha() else repr(method),
                path,
                extra={
                    "keyauth_event": "refused",
                    "reason": code,
                    "key_id": key_id,
                    "address": address,
                    "http_method": method,
                    "http_path": path,
                },
            )
        if isinstance(error, FailedAttempt):
            self._emit("failed", key_id=key_id, address=address, reason=code)
            if error.begins_block:
                logger.info(
                    "blocked: address=%s after too many failed attempts",
                    address,
                    extra={"keyauth_event": "blocked", "reason": code, "key_id": key_id, "address": address},
                )
                self._emit("blocked", key_id=key_id, address=address, reason=code)
        elif isinstance(error, RateLimitExceeded) and self._hook is not None and self._is_first_of_hour(visit):
            owner_id = None if visit.key is None else visit.key.owner_id
            self._emit("limited", key_id=key_id, owner_id=owner_id, address=address, reason=code)

    def _is_first_of_hour(self, visit: "Visit") -> bool:
        """A client that goes on over its cap must not flood the hook."""
        if visit.key is None or visit.decision is None:
            return True
        hour = visit.decision.hour
        if self._limited.get(visit.key.id) == hour:
            return False
        self._limited[visit.key.id] = hour
        self._limited.move_to_end(visit.key.id)
        while len(self._limited) > MAX_LIMITED:
            self._limited.popitem(last=False)
        return True

    def changed(self, event: EventKind, key: "Key", actor: "Actor", changes: Mapping[str, Any]) -> None:
        """A change to a key is committed."""
        logger.info(
            "key %s: %s by %r from address=%s",
            event,
            key.id,
            actor.name,
            actor.address,
            extra={
                "keyauth_event": event,
                "key_id": key.id,
                "owner_id": key.owner_id,
                "actor": actor.name,
                "address": actor.address,
            },
        )
        self._emit(
            event,
            key_id=key.id,
            owner_id=key.owner_id,
            address=actor.address,
            actor=actor.name,
            changed=tuple(changes),
        )

    def lost(self, part: str, reason: str) -> None:
        """``redis`` or ``database`` is out of reach. Saying so again changes nothing."""
        if part not in self._away:
            self._away.add(part)
            self._counts.outages[part] += 1
            self._emit("outage", part=part, reason=reason)

    def back(self, part: str) -> None:
        """It can be reached. Saying so of one that was not lost changes nothing."""
        if part in self._away:
            self._away.remove(part)
            self._counts.recoveries[part] += 1
            self._emit("recovered", part=part)

    def _emit(self, kind: EventKind, **facts: Any) -> None:
        if self._hook is not None:
            self._hook.emit(AuthEvent(kind, self._now(), **facts))
