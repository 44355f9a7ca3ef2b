"""Reports of what happens: to the log, to the counters, and to the ``on_event`` hook if there is one.

Nothing here is called for a request that is admitted.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fastapi_keyauth.domain.events import AuthEvent, EventKind
from fastapi_keyauth.domain.keys import Actor, Key
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import find_key_id
from fastapi_keyauth.errors import FailedAttempt, KeyAuthError, RateLimitExceeded, TemporarilyUnavailable
from fastapi_keyauth.telemetry.counters import Metrics
from fastapi_keyauth.telemetry.event_hook import EventDispatcher

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
        metrics: has the counters.
        hook: None where nobody asked for events.
        now: the time, UTC.
    """

    def __init__(self, metrics: Metrics, hook: EventDispatcher | None, now: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self._counters = metrics.counters
        self._hook = hook
        self._now = now
        self._limited: OrderedDict[str, int] = OrderedDict()
        """Key id to the hour in which its cap was told of."""
        self._away: set[str] = set()

    def refused(
        self,
        error: KeyAuthError,
        code: str,
        *,
        method: str,
        path: str,
        address: str | None,
        token: str | None,
        key_id: str | None,
        owner_id: str | None,
        hour: int | None,
    ) -> None:
        """Record that a request was answered with an error. The reason is logged; what was sent is not.

        Args:
            error: The error.
            code: Code of the answer.
            method: HTTP method, or ``WEBSOCKET``.
            path: Path of the request.
            address: The client's address, if it is known.
            token: What was sent as an API token, if anything was.
            key_id: The key whose secret was right, if there is one.
            owner_id: Its owner.
            hour: Hour in which a unit was asked for, if that far was come.
        """
        self._counters.refused[code] += 1
        concerned: str | None = getattr(error, "key_id", None)
        if logger.isEnabledFor(logging.INFO):
            if isinstance(error, TemporarilyUnavailable) and token is not None:
                concerned = find_key_id(token)  # the error was raised where nobody knows for whom
            method, path = redact(method[:MAX_METHOD]), redact(path[:MAX_PATH])
            logger.info(
                "refused: %s key=%s address=%s %s %r",
                type(error).__name__,
                concerned,
                address,
                method if method.isalpha() else repr(method),
                path,
                extra={
                    "keyauth_event": "refused",
                    "reason": code,
                    "key_id": concerned,
                    "address": address,
                    "http_method": method,
                    "http_path": path,
                },
            )
        if isinstance(error, FailedAttempt) and error.is_counted:
            self._emit("failed", key_id=concerned, address=address, reason=code)
            if error.begins_block:
                logger.info(
                    "blocked: address=%s after too many failed attempts",
                    address,
                    extra={"keyauth_event": "blocked", "reason": code, "key_id": concerned, "address": address},
                )
                self._emit("blocked", key_id=concerned, address=address, reason=code)
        elif isinstance(error, RateLimitExceeded) and self._hook is not None and self._is_first_of_hour(key_id, hour):
            self._emit("limited", key_id=concerned, owner_id=owner_id, address=address, reason=code)

    def _is_first_of_hour(self, key_id: str | None, hour: int | None) -> bool:
        """Whether this is a key's first refusal by its limit in this hour, so that a client cannot flood the hook."""
        if key_id is None or hour is None:
            return True
        if self._limited.get(key_id) == hour:
            return False
        self._limited[key_id] = hour
        self._limited.move_to_end(key_id)
        while len(self._limited) > MAX_LIMITED:
            self._limited.popitem(last=False)
        return True

    def changed(self, event: EventKind, key: Key, actor: Actor, changes: Mapping[str, Any]) -> None:
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
            self._counters.outages[part] += 1
            self._emit("outage", part=part, reason=reason)

    def back(self, part: str) -> None:
        """It can be reached. Saying so of one that was not lost changes nothing."""
        if part in self._away:
            self._away.remove(part)
            self._counters.recoveries[part] += 1
            self._emit("recovered", part=part)

    def _emit(self, kind: EventKind, **facts: Any) -> None:
        if self._hook is not None:
            self._hook.emit(AuthEvent(kind, self._now(), **facts))
