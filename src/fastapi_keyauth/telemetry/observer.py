"""Reports of events: to the log, to the counters, and to the ``on_event`` hook if there is one.

Nothing here is called for a request that is admitted.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.domain.events import AuthEvent, EventKind
from fastapi_keyauth.domain.keys import Actor, Key
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import find_key_id
from fastapi_keyauth.errors import FailedAttempt, KeyAuthError, RateLimitExceeded, TemporarilyUnavailable
from fastapi_keyauth.telemetry.counters import Metrics
from fastapi_keyauth.telemetry.event_hook import EventDispatcher

logger = logging.getLogger("fastapi_keyauth")

MAX_LIMITED = 4096
"""Maximum number of keys whose first refusal of an hour is stored."""

MAX_PATH = 1000
"""Maximum length of a logged path. A refusal costs a client nothing and must not fill the disk."""
MAX_METHOD = 200
"""Maximum length of a logged method. A token that was sent in its place is shorter, so it is redacted as a whole."""


class Observer:
    """Reports events; see the module.

    Args:
        metrics: Metrics with the counters.
        hook: Dispatcher of events, or None without ``on_event``.
        now: Returns the time, in UTC.
    """

    def __init__(self, metrics: Metrics, hook: EventDispatcher | None, now: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self._counters = metrics.counters
        self._hook = hook
        self._now = now
        self._limited: BoundedDict[str, int] = BoundedDict(MAX_LIMITED)
        """Key id to the hour in which its first refusal by a limit was reported."""
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
        """Report a refused request. The code is logged, the credentials are not.

        Args:
            error: The error.
            code: Code of the response.
            method: HTTP method, or ``WEBSOCKET``.
            path: Path of the request.
            address: The client's address, if it is known.
            token: What was sent as an API token, or None.
            key_id: Key whose secret was correct, or None.
            owner_id: Owner of that key, or None.
            hour: Hour in which a unit was requested, or None if no limit was checked.
        """
        self._counters.refused[code] += 1
        concerned: str | None = getattr(error, "key_id", None)
        if logger.isEnabledFor(logging.INFO):
            if isinstance(error, TemporarilyUnavailable) and token is not None:
                concerned = find_key_id(token)  # the part that raised the error does not know the key
            method, path = redact(method[:MAX_METHOD]), redact(path[:MAX_PATH])
            logger.info(
                "refused: %s key=%s address=%s %s %r",
                code,
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

    def ended(self, code: str, *, method: str, path: str, address: str | None, key_id: str | None) -> None:
        """Report a request that was ended while it ran.

        Args:
            code: Code of the reason.
            method: HTTP method, or ``WEBSOCKET``.
            path: Path of the request.
            address: The client's address, if it is known.
            key_id: Its key, or None if it has a session alone.
        """
        self._counters.ended[code] += 1
        if logger.isEnabledFor(logging.INFO):
            method, path = redact(method[:MAX_METHOD]), redact(path[:MAX_PATH])
            logger.info(
                "ended in flight: %s key=%s address=%s %s %r",
                code,
                key_id,
                address,
                method if method.isalpha() else repr(method),
                path,
                extra={
                    "keyauth_event": "in_flight_ended",
                    "reason": code,
                    "key_id": key_id,
                    "address": address,
                    "http_method": method,
                    "http_path": path,
                },
            )

    def _is_first_of_hour(self, key_id: str | None, hour: int | None) -> bool:
        """Return whether a limit refuses the key for the first time in this hour, so that no client floods the hook."""
        if key_id is None or hour is None:
            return True
        if self._limited.get(key_id) == hour:
            return False
        self._limited[key_id] = hour
        return True

    def changed(self, event: EventKind, key: Key, actor: Actor, changes: Mapping[str, Any]) -> None:
        """Report a committed change to a key."""
        logger.info(
            "key %s: key=%s actor=%r address=%s",
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

    def revoked_all(self, keys: Sequence[tuple[str, str]], actor: Actor) -> None:
        """Report the committed revocation of many keys: their ids and owners."""
        if keys:
            logger.info(
                "keys revoked: count=%d actor=%r address=%s",
                len(keys),
                actor.name,
                actor.address,
                extra={"keyauth_event": "revoked", "actor": actor.name, "address": actor.address},
            )
        for key_id, owner_id in keys:
            self._emit("revoked", key_id=key_id, owner_id=owner_id, address=actor.address, actor=actor.name)

    def owner_changed(self, what: str, owner_id: str | None, actor: Actor) -> None:
        """Report a committed change to an owner: ``updated``, ``suspended``, ``resumed`` or ``erased``."""
        reason = None if actor.reason is None else redact(actor.reason)
        logger.info(
            "owner %s: owner=%r actor=%r address=%s reason=%r",
            what,
            owner_id,
            actor.name,
            actor.address,
            reason,
            extra={
                "keyauth_event": f"owner_{what}",
                "owner_id": owner_id,
                "actor": actor.name,
                "address": actor.address,
                "reason": reason,
            },
        )

    def report_unused(self, key_id: str, owner_id: str | None, days: int) -> None:
        """Report that a key was disabled, since it was not used for this many days."""
        logger.info(
            "key disabled: key=%s was not used for %d days",
            key_id,
            days,
            extra={"keyauth_event": "unused", "key_id": key_id, "owner_id": owner_id},
        )
        self._emit("unused", key_id=key_id, owner_id=owner_id, days=days)

    def report_ending(self, key_id: str, owner_id: str, expires_at: datetime, days: int) -> None:
        """Report that a key has ended, or will end in this many days."""
        if days:
            self._emit("expiring", key_id=key_id, owner_id=owner_id, expires_at=expires_at, days=days)
        else:
            self._emit("expired", key_id=key_id, owner_id=owner_id, expires_at=expires_at)

    def report_outage(self, part: str, reason: str) -> None:
        """Report that ``redis`` or ``database`` is unavailable. Repeating it changes nothing."""
        if part not in self._away:
            self._away.add(part)
            self._counters.outages[part] += 1
            self._emit("outage", part=part, reason=reason)

    def report_recovery(self, part: str) -> None:
        """Report that a part has recovered. It changes nothing if the part was not unavailable."""
        if part in self._away:
            self._away.remove(part)
            self._counters.recoveries[part] += 1
            self._emit("recovered", part=part)

    def _emit(self, kind: EventKind, **facts: Any) -> None:
        if self._hook is not None:
            self._hook.emit(AuthEvent(kind, self._now(), **facts))
