"""Keys, secrets, origins, events, changes, usage and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# The tables of this revision: later changes to store/tables.py must not affect them.
_time = sa.DateTime(timezone=True)
_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "keyauth_keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("owner_id", sa.String(255), nullable=False),
        sa.Column("environment", sa.String(16), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("hourly_limit", sa.Integer()),
        sa.Column("allowed_origins", sa.JSON(), nullable=False),
        sa.Column("allowed_ips", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("expires_at", _time),
        sa.Column("revoked_at", _time),
        sa.Column("last_used_at", _time),
    )
    op.create_index("ix_keyauth_keys_owner", "keyauth_keys", ["owner_id", "created_at", "id"])
    op.create_index("ix_keyauth_keys_created", "keyauth_keys", ["created_at", "id"])
    op.create_table(
        "keyauth_secrets",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("tag", sa.String(8), nullable=False),
        sa.Column("hash", sa.String(255), nullable=False),
        sa.Column("last4", sa.String(4), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("expires_at", _time),
        sa.Column("last_used_at", _time),
    )
    op.create_index("ix_keyauth_secrets_key", "keyauth_secrets", ["key_id", "tag"])
    op.create_table(
        "keyauth_origins",
        sa.Column("origin", sa.String(300), primary_key=True),
        sa.Column("key_id", sa.String(12), primary_key=True),
    )
    op.create_table(
        "keyauth_events",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(300), nullable=False),
        sa.Column("address", sa.String(255)),
        sa.Column("at", _time, nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
    )
    op.create_index("ix_keyauth_events_key", "keyauth_events", ["key_id", "id"])
    op.create_table(
        "keyauth_changes",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("at", _time, nullable=False),
    )
    op.create_table(
        "keyauth_usage",
        sa.Column("key_id", sa.String(12), primary_key=True),
        sa.Column("hour", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("admitted", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "keyauth_sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("expires_at", _time, nullable=False),
        sa.Column("revoked_at", _time),
    )
    op.create_index("ix_keyauth_sessions_user_id", "keyauth_sessions", ["user_id"])
