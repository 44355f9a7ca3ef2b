"""Owners: the projects, teams or users that keys belong to."""

from dataclasses import dataclass
from datetime import datetime

from fastapi_keyauth.domain.limit_sets import LimitState


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """Number of keys by status. Added in 0.2."""

    active: int = 0
    disabled: int = 0
    expired: int = 0
    revoked: int = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner of keys. Added in 0.2.

    Attributes:
        owner_id: Its id, any string of the application.
        name: Its name for people. None: none was set.
        suspended_at: When it was suspended (UTC). None: it is not suspended.
        reason: Why it was suspended.
        limits: The limits of all its keys together, and what is left of them.
        keys: Number of its keys by status.
    """

    owner_id: str
    name: str | None
    suspended_at: datetime | None
    reason: str | None
    limits: tuple[LimitState, ...]
    keys: KeyCounts


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure changed. Added in 0.2.

    Attributes:
        keys: Number of keys that were revoked or made anonymous.
        sessions: Number of sessions that were ended and deleted.
        events: Number of entries of histories that were made anonymous.
        owners: 1 if something was set for the owner.
        usage: Number of keys on closed days whose owner was replaced.
    """

    keys: int = 0
    sessions: int = 0
    events: int = 0
    owners: int = 0
    usage: int = 0

    @property
    def rows(self) -> int:
        """Number of rows that were changed."""
        return self.keys + self.sessions + self.events + self.owners + self.usage
