"""The policy for the lifetime of keys: how long they may live, and how long they may stay unused."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fastapi_keyauth.errors import InvalidField

Mark = Literal["applies", "exempt"]
"""Whether the policy applies to a key, as its row stores it. None: the key was created while no policy was set."""
APPLIES: Mark = "applies"
EXEMPT: Mark = "exempt"


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """The policy for the lifetime of keys.

    Attributes:
        default_ttl: Lifetime of a key that is created without an expiry. None: the maximum.
        max_ttl: Maximum lifetime, from creation. None: no maximum.
        unused_after: Time without use after which a key is disabled. None: never.
        applies_to_all: Whether it also applies to keys that were created while no policy was set.
    """

    default_ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    unused_after: timedelta | None = None
    applies_to_all: bool = False

    @property
    def is_set(self) -> bool:
        """Whether any rule is set."""
        return (self.default_ttl, self.max_ttl, self.unused_after) != (None, None, None)

    def mark(self, is_exempt: bool) -> Mark | None:
        """Return the mark of a new key."""
        if is_exempt:
            return EXEMPT
        return APPLIES if self.is_set else None

    def applies_to(self, mark: str | None) -> bool:
        """Return whether the policy applies to a key with this mark."""
        return mark != EXEMPT and (mark == APPLIES or self.applies_to_all)

    def complete(self, expires_at: datetime | None, now: datetime, is_exempt: bool, field: str) -> datetime | None:
        """Return the expiry of a key that is created now.

        Args:
            expires_at: The requested expiry. None: not specified.
            now: The current time, UTC.
            is_exempt: Whether the key is exempt from the policy.
            field: Name of the field that an error names.

        Raises:
            InvalidField: If the key would live longer than the maximum.
        """
        if is_exempt:
            return expires_at
        if expires_at is None:
            ttl = self.default_ttl or self.max_ttl
            return None if ttl is None else now + ttl
        self._check_maximum(expires_at, now, "now", field)
        return expires_at

    def check_change(self, expires_at: datetime | None, created_at: datetime) -> None:
        """Check a new expiry of a key that the policy applies to.

        Raises:
            InvalidField: If the key would live longer than the maximum.
        """
        self._check_maximum(expires_at, created_at, "its creation", "expires_at")

    def shorten(self, expires_at: datetime | None, created_at: datetime) -> datetime | None:
        """Return the expiry of a key that the policy applies to, limited to the maximum lifetime."""
        if self.max_ttl is None:
            return expires_at
        end = created_at + self.max_ttl
        return end if expires_at is None else min(expires_at, end)

    def end(self, expires_at: datetime | None, created_at: datetime, mark: str | None) -> datetime | None:
        """Return when a key ends, by its row and the policy.

        A key that was created under the policy has its end in the row, so that a later policy does not shorten it.
        """
        if self.max_ttl is None or not self.applies_to_all or mark == EXEMPT:
            return expires_at
        return self.shorten(expires_at, created_at)

    def _check_maximum(self, expires_at: datetime | None, start: datetime, start_name: str, field: str) -> None:
        if self.max_ttl is not None and (expires_at is None or expires_at > start + self.max_ttl):
            most = int(self.max_ttl.total_seconds())
            raise InvalidField(field, f"must be at most max_key_ttl_s ({most} seconds) after {start_name}")
