"""Limits of keys, owners, and the owners of pending announcements."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two columns and a table."""
    op.add_column("keyauth_keys", sa.Column("limits", sa.JSON()))
    op.add_column("keyauth_changes", sa.Column("owner_id", sa.String(255)))
    op.create_table(
        "keyauth_owners",
        sa.Column("prefix", sa.String(16), primary_key=True),
        sa.Column("owner_id", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(100)),
        sa.Column("limits", sa.JSON()),
        sa.Column("suspended_at", _time),
        sa.Column("reason", sa.String(500)),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
    )
