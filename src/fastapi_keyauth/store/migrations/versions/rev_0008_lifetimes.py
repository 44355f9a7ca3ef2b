"""The policy for the lifetime of keys, and the events about their end."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two columns, two indexes and a table."""
    op.add_column("keyauth_keys", sa.Column("policy", sa.String(8)))
    op.add_column("keyauth_keys", sa.Column("enabled_at", _time))
    op.create_index("ix_keyauth_keys_expires", "keyauth_keys", ["expires_at"])
    op.create_index(
        "ix_keyauth_keys_last_used",
        "keyauth_keys",
        ["last_used_at"],
        postgresql_where=sa.text("enabled AND revoked_at IS NULL"),
        sqlite_where=sa.text("enabled = 1 AND revoked_at IS NULL"),
    )
    op.create_table(
        "keyauth_notices",
        sa.Column("key_id", sa.String(12), primary_key=True),
        sa.Column("notice", sa.String(16), primary_key=True),
        sa.Column("at", _time, nullable=False),
    )
