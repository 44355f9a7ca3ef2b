"""Records built from rows, and conditions that several statements share."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, false, not_, or_, true

from fastapi_keyauth.domain.keys import Key, KeySnapshot, Secret, Status, key_status
from fastapi_keyauth.domain.lifetimes import EXEMPT
from fastapi_keyauth.domain.limit_sets import limit_set
from fastapi_keyauth.domain.limits import LimitRules, find_hourly
from fastapi_keyauth.domain.tokens import format_hint
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.tables import KeyRow, OwnerRow, SecretRow, table

keys = table(KeyRow)
secrets = table(SecretRow)
owners = table(OwnerRow)

_FOR_PEOPLE = ("last_used_at", "created_by", "imported_at", "disabled_by_admin", "prefix", "enabled_at")

FOR_TOKEN_COLUMNS = (
    *(column for column in keys.c if column.name not in _FOR_PEOPLE),
    secrets.c.id.label("secret_id"),
    secrets.c.hash.label("secret_hash"),
    secrets.c.expires_at.label("secret_expires_at"),
    secrets.c.lookup,
    owners.c.limits.label("owner_limits"),
    owners.c.suspended_at.label("owner_suspended_at"),
)
"""Columns that ``RowMapper.key_snapshot`` requires, and the hash."""


def is_of_product(target: Table, prefix: str) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the product with this key prefix."""
    return or_(target.c.prefix.is_(None), target.c.prefix == prefix)


@lru_cache(maxsize=1024)
def _scopes(names: tuple[str, ...]) -> frozenset[str]:
    """Return one object for equal names: most keys have equal scopes, and a set takes a quarter of a key's memory."""
    return frozenset(names)


class RowMapper:
    """Builds records, and completes them by the settings: prefix and default limits.

    Args:
        settings: The settings.

    Attributes:
        prefix: First part of every token of this product.
        rules: Completes limits by the defaults.
        policy: Policy for the lifetime of keys.
        token_tables: Where ``FOR_TOKEN_COLUMNS`` come from.
    """

    def __init__(self, settings: KeyAuthSettings) -> None:
        self.prefix = settings.key_prefix
        self._imported_until = settings.imported_until
        self.policy = settings.key_policy
        self.rules = LimitRules(
            settings.default_hourly_limit,
            settings.default_limits,
            settings.default_owner_limits,
            settings.rate_limit_algorithm,
        )
        is_owner = (owners.c.prefix == self.prefix) & (owners.c.owner_id == keys.c.owner_id)
        self.token_tables = keys.join(secrets, secrets.c.key_id == keys.c.id).outerjoin(owners, is_owner)

    def has_status(self, status: Status, now: datetime) -> ColumnElement[bool]:
        """Return the condition under which ``key_status`` returns this status."""
        not_revoked = keys.c.revoked_at.is_(None)
        on = and_(not_revoked, keys.c.enabled == true())
        has_ended = self.has_ended(now)
        conditions: dict[Status, ColumnElement[bool]] = {
            "revoked": keys.c.revoked_at.is_not(None),
            "disabled": and_(not_revoked, keys.c.enabled == false()),
            "expired": and_(on, has_ended),
            "active": and_(on, not_(has_ended)),
        }
        return conditions[status]

    def has_ended(self, now: datetime) -> ColumnElement[bool]:
        """Return the condition under which a key has expired, by its row or by the policy."""
        by_row = and_(keys.c.expires_at.is_not(None), keys.c.expires_at <= now)
        if self.policy.max_ttl is None or not self.policy.applies_to_all:
            return by_row
        is_exempt = and_(keys.c.policy.is_not(None), keys.c.policy == EXEMPT)
        return or_(by_row, and_(not_(is_exempt), keys.c.created_at <= now - self.policy.max_ttl))

    def key(self, row: Mapping[str, Any], secret_rows: Sequence[Mapping[str, Any]], now: datetime) -> Key:
        """Return a key with its active secrets.

        Args:
            row: Row of the key.
            secret_rows: Rows of all secrets that may be active, newest first, at least one.
            now: The time, UTC.
        """
        environment, key_id = row["environment"], row["id"]
        found = [self._secret(environment, key_id, secret) for secret in secret_rows]
        alive = [secret for secret in found if secret.expires_at is None or secret.expires_at > now]
        limits = self.rules.of_key(row["hourly_limit"], row["limits"])
        expires_at = self.policy.end(row["expires_at"], row["created_at"], row["policy"])
        return Key(
            id=key_id,
            name=row["name"],
            owner_id=row["owner_id"],
            environment=environment,
            hint=found[0].hint,
            scopes=row["scopes"],
            hourly_limit=find_hourly(limits),
            allowed_origins=row["allowed_origins"],
            allowed_ips=row["allowed_ips"],
            metadata=row["metadata"],
            status=key_status(row["enabled"], expires_at, row["revoked_at"], now),
            enabled=row["enabled"],
            created_at=row["created_at"],
            expires_at=expires_at,
            revoked_at=row["revoked_at"],
            last_used_at=row["last_used_at"],
            secrets=alive,
            created_by=row["created_by"],
            limits=limits,
            disabled_by_admin=row["disabled_by_admin"],
            imported_at=row["imported_at"],
            exempt_from_policy=row["policy"] == EXEMPT,
        )

    def key_snapshot(self, row: Row[Any]) -> KeySnapshot:
        """Return what a request needs, from the joined row of a key and the secret whose tag matches."""
        limits = self.rules.of_key(row.hourly_limit, row.limits)
        return KeySnapshot(
            id=row.id,
            name=row.name,
            owner_id=row.owner_id,
            environment=sys.intern(row.environment),
            scopes=_scopes(tuple(row.scopes)),
            metadata_json=json.dumps(row.metadata) if row.metadata else "",
            hourly_limit=find_hourly(limits),
            allowed_origins=tuple(row.allowed_origins),
            allowed_ips=tuple(row.allowed_ips),
            enabled=row.enabled,
            expires_at=self.policy.end(row.expires_at, row.created_at, row.policy),
            revoked_at=row.revoked_at,
            secret_id=row.secret_id,
            secret_expires_at=self._end(row.secret_expires_at, row.lookup),
            limits=limit_set(limits, self.rules.of_owner(row.owner_limits)),
            is_owner_suspended=row.owner_suspended_at is not None,
        )

    def _secret(self, environment: str, key_id: str, row: Mapping[str, Any]) -> Secret:
        # The rest of an imported token is not known here, and does not have our form.
        is_ours = row["lookup"] is None
        return Secret(
            hint=format_hint(self.prefix, environment, key_id, row["last4"]) if is_ours else f"…{row['last4']}",
            created_at=row["created_at"],
            expires_at=self._end(row["expires_at"], row["lookup"]),
            last_used_at=row["last_used_at"],
            is_imported=not is_ours,
        )

    def _end(self, expires_at: datetime | None, lookup: str | None) -> datetime | None:
        """Return when a secret ends: an imported one, which has a lookup, by ``imported_until`` at the latest."""
        if lookup is None or self._imported_until is None:
            return expires_at
        return self._imported_until if expires_at is None else min(expires_at, self._imported_until)
