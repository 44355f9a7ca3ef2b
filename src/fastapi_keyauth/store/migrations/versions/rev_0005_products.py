"""The product (``key_prefix``) of keys, sessions and announcements."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column to three tables. Existing rows still belong to every product."""
    for table in ("keyauth_keys", "keyauth_sessions", "keyauth_changes"):
        op.add_column(table, sa.Column("prefix", sa.String(16)))
