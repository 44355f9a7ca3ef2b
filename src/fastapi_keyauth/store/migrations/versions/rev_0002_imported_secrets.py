"""Columns for imported secrets, and an index for the origins of one key."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two columns and two indexes."""
    op.add_column("keyauth_secrets", sa.Column("scheme", sa.String(16)))
    op.add_column("keyauth_secrets", sa.Column("lookup", sa.String(64)))
    has_one = sa.text("lookup IS NOT NULL")
    op.create_index(
        "ux_keyauth_secrets_lookup",
        "keyauth_secrets",
        ["lookup"],
        unique=True,
        postgresql_where=has_one,
        sqlite_where=has_one,
    )
    op.create_index("ix_keyauth_origins_key", "keyauth_origins", ["key_id"])
