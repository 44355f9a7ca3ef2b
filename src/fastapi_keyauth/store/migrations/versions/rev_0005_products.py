"""Which product (``key_prefix``) a key, a session and an announcement belong to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column to three tables. Rows from before belong to every product, as they did."""
    for table in ("keyauth_keys", "keyauth_sessions", "keyauth_changes"):
        op.add_column(table, sa.Column("prefix", sa.String(16)))
