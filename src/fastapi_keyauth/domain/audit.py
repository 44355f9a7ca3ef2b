"""Findings of an audit of keys: weaknesses that a security review would report."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fastapi_keyauth.domain.keys import Key, Secret
from fastapi_keyauth.domain.principals import ADMIN, ALL

FindingKind = Literal[
    "never_expires",
    "unused",
    "never_used",
    "no_limit",
    "all_scopes",
    "admin",
    "old_secret",
    "no_address_list",
    "imported_secret",
    "creator_not_member",
]
"""Kinds of findings. ``creator_not_member``: the session that created the key may no longer act for its owner."""
UNUSED_DAYS = 90
"""Days without use after which a key is reported."""
OLD_SECRET_DAYS = 365
"""Age in days from which a secret is reported."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One finding about an active key. Added in 0.2.

    Attributes:
        finding: Kind of the finding; see ``FindingKind``.
        key_id: The key.
        owner_id: Its owner.
        detail: One sentence that says what was found.
    """

    finding: FindingKind
    key_id: str
    owner_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    """An iterable page of findings, grouped by key, the newest key first. Added in 0.2.

    Attributes:
        items: The findings.
        next_cursor: Cursor of the keys that follow. None: there are no more keys.
    """

    items: list[AuditFinding]
    next_cursor: str | None

    def __iter__(self) -> Iterator[AuditFinding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def find_problems(key: Key, now: datetime, *, owner_has_limits: bool) -> Iterator[tuple[FindingKind, str]]:
    """Yield the findings about one key: the kind of each, and a sentence.

    Args:
        key: The key.
        now: The current time, UTC.
        owner_has_limits: Whether the owner of the key has a limit.
    """
    if key.expires_at is None:
        yield "never_expires", "It never expires."
    if key.last_used_at is None:
        yield "never_used", "It was never used."
    last = max(moment for moment in (key.last_used_at, key.imported_at, key.created_at) if moment is not None)
    if now - last >= timedelta(days=UNUSED_DAYS):
        yield "unused", f"It was not used for {(now - last).days} days."
    if not key.limits and not owner_has_limits:
        yield "no_limit", "Neither the key nor its owner has a limit."
    if ALL in key.scopes:
        yield "all_scopes", "It holds every scope of the application (*)."
    if ADMIN in key.scopes:
        yield "admin", "It holds admin: it may manage the keys of every owner."
    for secret in key.secrets:
        yield from _find_problems_of_secret(secret, key.imported_at, now)
    if not key.allowed_ips:
        yield "no_address_list", "It may be used from any address."


def _find_problems_of_secret(
    secret: Secret, imported_at: datetime | None, now: datetime
) -> Iterator[tuple[FindingKind, str]]:
    age = now - secret.created_at
    if age >= timedelta(days=OLD_SECRET_DAYS):
        yield "old_secret", f"The secret {secret.hint} is {age.days} days old."
    if secret.is_imported:
        # An import may bring a last use of the other system, which says nothing about clients of this one.
        used_at = secret.last_used_at
        if used_at is None or (imported_at is not None and used_at <= imported_at):
            use = "was not used since the import"
        else:
            use = f"was last used on {used_at:%Y-%m-%d}"
        yield "imported_secret", f"The secret {secret.hint} was created by another system and {use}."
