"""The tables. They have their own metadata, apart from an application's ``SQLModel.metadata``.

Every change here requires a revision in ``store/migrations/versions``; a test compares the two.
"""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    false,
    text,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from fastapi_keyauth.store.column_types import Serial, UTCDateTime


class _Base(SQLModel, registry=registry(metadata=MetaData())):
    """Base of the tables."""


class KeyRow(_Base, table=True):
    """A key: its owner, policy and limits. Its secrets are rows of their own."""

    __tablename__ = "keyauth_keys"
    __table_args__ = (
        Index("ix_keyauth_keys_owner", "owner_id", "created_at", "id"),
        Index("ix_keyauth_keys_created", "created_at", "id"),
        Index("ix_keyauth_keys_created_by", "created_by"),
        Index("ix_keyauth_keys_expires", "expires_at"),
        # Of keys in use only: those that were disabled because they were unused must not be found again and again.
        Index(
            "ix_keyauth_keys_last_used",
            "last_used_at",
            postgresql_where=text("enabled AND revoked_at IS NULL"),
            sqlite_where=text("enabled = 1 AND revoked_at IS NULL"),
        ),
    )

    id: str = Field(sa_column=Column(String(12), primary_key=True))
    name: str = Field(sa_column=Column(String(100), nullable=False))
    owner_id: str = Field(sa_column=Column(String(255), nullable=False))
    environment: str = Field(sa_column=Column(String(16), nullable=False))
    scopes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    notes: dict[str, Any] = Field(sa_column=Column("metadata", JSON, nullable=False))
    hourly_limit: int | None = Field(default=None, sa_column=Column(Integer))
    limits: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """Limits of its own. None: ``hourly_limit`` alone, or the defaults."""
    allowed_origins: list[str] = Field(sa_column=Column(JSON, nullable=False))
    allowed_ips: list[str] = Field(sa_column=Column(JSON, nullable=False))
    enabled: bool = True
    created_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    created_by: str | None = Field(default=None, sa_column=Column(String(300)))
    """Name of the actor that created it. None: neither this column nor the history of the key has it."""
    imported_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    disabled_by_admin: bool = Field(sa_column=Column(Boolean, nullable=False, server_default=false()))
    """Whether only ``admin`` may enable it."""
    prefix: str | None = Field(default=None, sa_column=Column(String(16)))
    """The product (``key_prefix``) that it belongs to. None: a row of version 0.1, which belongs to every product of
    this database."""
    policy: str | None = Field(default=None, sa_column=Column(String(8)))
    """Whether the policy for lifetimes applies to it: ``applies`` or ``exempt``. None: it was created without one."""
    enabled_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    """When it was last enabled again. From then on it counts as unused at the earliest."""


class NoticeRow(_Base, table=True):
    """An event about the end of a key that was sent, so that it is sent once over all workers and restarts."""

    __tablename__ = "keyauth_notices"

    key_id: str = Field(sa_column=Column(String(12), primary_key=True))
    notice: str = Field(sa_column=Column(String(16), primary_key=True))
    """See ``store/lifetimes.py``. Deleted when the expiry of the key changes."""
    at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))


class OwnerRow(_Base, table=True):
    """An owner for whom something was set. Most owners have no row."""

    __tablename__ = "keyauth_owners"

    prefix: str = Field(sa_column=Column(String(16), primary_key=True))
    """The setting ``key_prefix``: each product has its own owners."""
    owner_id: str = Field(sa_column=Column(String(255), primary_key=True))
    name: str | None = Field(default=None, sa_column=Column(String(100)))
    limits: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """Limits of its own. None: the defaults."""
    suspended_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    reason: str | None = Field(default=None, sa_column=Column(String(500)))
    """Why it was suspended."""
    created_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    updated_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))


class SecretRow(_Base, table=True):
    """A secret of a key. A key has one, or two during a rotation. Replaced ones stay, so that they are recognized."""

    __tablename__ = "keyauth_secrets"
    __table_args__ = (
        Index("ix_keyauth_secrets_key", "key_id", "tag"),
        # A partial index: secrets without a lookup, which are most, are not in it.
        Index(
            "ux_keyauth_secrets_lookup",
            "lookup",
            unique=True,
            postgresql_where=text("lookup IS NOT NULL"),
            sqlite_where=text("lookup IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    key_id: str = Field(sa_column=Column(String(12), nullable=False))
    tag: str = Field(sa_column=Column(String(8), nullable=False))
    hash: str = Field(sa_column=Column(String(255), nullable=False))
    last4: str = Field(sa_column=Column(String(4), nullable=False))
    created_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    scheme: str | None = Field(default=None, sa_column=Column(String(16)))
    """Scheme of an imported ``hash``. None: Argon2id, computed by this package."""
    lookup: str | None = Field(default=None, sa_column=Column(String(64)))
    """How a token of a foreign form is found: the SHA-256 in hex of the token or of its public part. ``hash`` is then
    of the whole token. None: a token of this package's form, found by key id and tag. Unique: a token belongs to one
    key, and costs at most one hash."""


class OriginRow(_Base, table=True):
    """An allowed origin of a key, stored again in a row of its own, so that all origins are read without all keys."""

    __tablename__ = "keyauth_origins"
    # Creating a key or changing its list reads the rows of one key.
    __table_args__ = (Index("ix_keyauth_origins_key", "key_id"),)

    origin: str = Field(sa_column=Column(String(300), primary_key=True))
    key_id: str = Field(sa_column=Column(String(12), primary_key=True))


class EventRow(_Base, table=True):
    """A line of the history, written in the transaction of the change."""

    __tablename__ = "keyauth_events"
    __table_args__ = (Index("ix_keyauth_events_key", "key_id", "id"),)

    id: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    key_id: str = Field(sa_column=Column(String(12), nullable=False))
    """The key; "" for a change of an owner."""
    event: str = Field(sa_column=Column(String(16), nullable=False))
    actor: str = Field(sa_column=Column(String(300), nullable=False))
    address: str | None = Field(default=None, sa_column=Column(String(255)))
    at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    changes: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    reason: str | None = Field(default=None, sa_column=Column(String(500)))
    by_admin: bool = Field(sa_column=Column(Boolean, nullable=False, server_default=false()))
    """Whether ``admin`` alone permitted it. The owner is then not shown the address."""


class ChangeRow(_Base, table=True):
    """A change that is stored and not yet announced to the other workers; see ``keys/outbox.py``."""

    __tablename__ = "keyauth_changes"

    id: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    key_id: str = Field(sa_column=Column(String(12), nullable=False))
    """The key; "" for a change of the owner, which concerns all its keys."""
    owner_id: str | None = Field(default=None, sa_column=Column(String(255)))
    """The owner. None in rows of version 0.1."""
    at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    prefix: str | None = Field(default=None, sa_column=Column(String(16)))
    """See ``KeyRow``: only workers of this product announce it."""


class UsageRow(_Base, table=True):
    """Requests of a key in one clock hour, as workers of version 0.1 count them; see ``store/usage_hours.py``."""

    __tablename__ = "keyauth_usage"
    __table_args__ = (Index("ix_keyauth_usage_hour", "hour"),)

    key_id: str = Field(sa_column=Column(String(12), primary_key=True))
    hour: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    """Hours since 1970-01-01T00:00Z."""
    admitted: int = Field(sa_column=Column(BigInteger, nullable=False))
    refused: int = Field(sa_column=Column(BigInteger, nullable=False))


class UsageHourRow(_Base, table=True):
    """Usage of a key in one clock hour, by unit and by where it was counted."""

    __tablename__ = "keyauth_usage_hours"
    __table_args__ = (Index("ix_keyauth_usage_hours_hour", "prefix", "hour"),)

    key_id: str = Field(sa_column=Column(String(12), primary_key=True))
    hour: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    """Hours since 1970-01-01T00:00Z."""
    unit: str = Field(sa_column=Column(String(32), primary_key=True))
    prefix: str = Field(sa_column=Column(String(16), primary_key=True))
    """The product that counted it. "": carried over from version 0.1, for a key that belongs to every product."""
    source: str = Field(sa_column=Column(String(32), primary_key=True))
    """Where it was counted; see ``store/usage.py``."""
    units: int = Field(sa_column=Column(BigInteger, nullable=False))
    refused: int = Field(sa_column=Column(BigInteger, nullable=False))


class UsageDayRow(_Base, table=True):
    """Usage of a key on a closed day, by unit. It never changes, except that an erasure replaces the owner."""

    __tablename__ = "keyauth_usage_days"
    __table_args__ = (
        Index("ux_keyauth_usage_days", "prefix", "day", "key_id", "unit", unique=True),
        Index("ix_keyauth_usage_days_key", "key_id", "day"),
        Index("ix_keyauth_usage_days_owner", "owner_id", "day"),
    )

    id: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    prefix: str = Field(sa_column=Column(String(16), nullable=False))
    day: int = Field(sa_column=Column(Integer, nullable=False))
    """Days since 1970-01-01."""
    owner_id: str = Field(sa_column=Column(String(255), nullable=False))
    key_id: str = Field(sa_column=Column(String(12), nullable=False))
    unit: str = Field(sa_column=Column(String(32), nullable=False))
    units: int = Field(sa_column=Column(BigInteger, nullable=False))
    refused: int = Field(sa_column=Column(BigInteger, nullable=False))


class UsageClosingRow(_Base, table=True):
    """How far the days of a product are closed."""

    __tablename__ = "keyauth_usage_closings"

    prefix: str = Field(sa_column=Column(String(16), primary_key=True))
    since: int = Field(sa_column=Column(Integer, nullable=False))
    """The first day on which usage was counted, in days since 1970."""
    open_day: int = Field(sa_column=Column(Integer, nullable=False))
    """The first day that is not closed. Days before are closed."""
    leased_until: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    """Until when a worker prepares the next closing, so that the others do not do the same work."""


class WriterRow(_Base, table=True):
    """A process that writes usage, and its last batch, so that a batch whose answer was lost is not counted twice."""

    __tablename__ = "keyauth_writers"

    id: str = Field(sa_column=Column(String(32), primary_key=True))
    batch: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))


class SessionRow(_Base, table=True):
    """A user's session. Of its token only the SHA-256 is stored."""

    __tablename__ = "keyauth_sessions"

    token_hash: str = Field(sa_column=Column(String(64), primary_key=True))
    user_id: str = Field(sa_column=Column(String(255), nullable=False, index=True))
    scopes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UTCDateTime, nullable=False, index=True))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime))
    prefix: str | None = Field(default=None, sa_column=Column(String(16)))
    """See ``KeyRow``."""


metadata = _Base.metadata


def table(model: type[SQLModel]) -> Table:
    """Return the table of a model, for statements that name their columns."""
    return cast(Table, model.__table__)  # type: ignore[attr-defined]  # SQLModel adds it, its stubs do not say so
