"""What an ``on_event`` hook is told. Never a secret, never a whole token."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

EventKind = Literal[
    "created", "updated", "rotated", "revoked", "leaked", "failed", "blocked", "limited", "outage", "recovered"
]
"""What happened.

``created``, ``updated``, ``rotated``, ``revoked``: to a key, once the change is committed. ``leaked``: a token of it
was found where it should not be; ``revoked`` follows where it was alive. ``failed``: a failed attempt was counted.
``blocked``: a failed attempt was the one that blocks its address; told once for each block, over all workers.
``limited``: a key met its cap; told once for each key and clock hour by each worker. ``outage``,
``recovered``: this worker lost sight of Redis or of the database, and sees it again.
"""


@dataclass(frozen=True, slots=True)
class AuthEvent:
    """One thing that happened.

    Attributes:
        kind: see ``EventKind``.
        at: when, UTC.
        key_id: the public id of the key concerned. Of ``failed`` and ``blocked`` it is what the client wrote: there may
            be no such key. None where none could be read.
        owner_id: the key's owner, where the key is known for certain.
        address: the client's address; None for code and scripts, and where the server gives none.
        actor: Who changed the key: ``user:<id>``, ``key:<id>``, ``leak:<source>``, ``cli:<operating-system user>`` or
            ``code``.
        reason: of a refusal its ``code``; of an outage what the client library said.
        part: of ``outage`` and ``recovered``: ``redis`` or ``database``.
        changed: of ``updated`` and ``rotated``: the names of the fields that changed; their values are in the key's
            history.
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
