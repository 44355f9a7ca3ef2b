"""Events for an ``on_event`` hook. They never contain a secret or a complete token."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

EventKind = Literal[
    "created",
    "updated",
    "rotated",
    "revoked",
    "leaked",
    "expiring",
    "expired",
    "unused",
    "failed",
    "blocked",
    "limited",
    "outage",
    "recovered",
]
"""Kinds of events that an ``on_event`` hook receives.

``created``, ``updated``, ``rotated``, ``revoked``: a change to a key is committed. ``leaked``: a token of the key was
found where it should not be; ``revoked`` follows if the key was still active. ``expiring``: the key ends in 7 days, or
in 1 day; ``expired``: it has ended; ``unused``: it was not used for long, and the policy disabled it. Each of these is
sent once, over all workers and restarts (added in 0.2). ``failed``: a failed attempt was counted.
``blocked``: a failed attempt blocked its address; sent once for each block, over all workers. ``limited``: a limit of a
key is used up; sent once for each key and clock hour by each worker. ``outage``, ``recovered``: Redis or the database
became unavailable for this worker, or recovered.
"""
# For ``help()``: the string above is read by documentation tools only, and a Literal has the docstring of ``typing``.
setattr(EventKind, "__doc__", "Kinds of events that an ``on_event`` hook receives; see ``AuthEvent``.")  # noqa: B010  # mypy knows no such attribute


@dataclass(frozen=True, slots=True)
class AuthEvent:
    """One event.

    Attributes:
        kind: Kind of the event; see ``EventKind``.
        at: Time of the event, in UTC.
        key_id: Public id of the key concerned. For ``failed`` and ``blocked`` it is what the client sent, so the key
            may not exist. None if no id could be read.
        owner_id: Owner of the key, if the key is known for certain.
        address: The client's address. None for code and scripts, and if the server gives none.
        actor: Who changed the key: ``user:<id>``, ``key:<id>``, ``leak:<source>``, ``cli:<operating-system user>`` or
            ``code``.
        reason: ``code`` of a refusal, or what the client library said about an outage.
        part: ``redis`` or ``database``, for ``outage`` and ``recovered``.
        changed: Names of the changed fields, for ``updated`` and ``rotated``. Their values are in the key's history.
        expires_at: When the key ends or has ended, for ``expiring`` and ``expired``, in UTC. Added in 0.2.
        days: Days until then for ``expiring``: 7 or 1; days without use for ``unused``. Added in 0.2.
    """

    kind: EventKind
    at: datetime
    key_id: str | None = None
    owner_id: str | None = None
    address: str | None = None
    actor: str | None = None
    reason: str | None = None
    part: str | None = None
    changed: tuple[str, ...] = ()
    expires_at: datetime | None = None
    days: int | None = None
