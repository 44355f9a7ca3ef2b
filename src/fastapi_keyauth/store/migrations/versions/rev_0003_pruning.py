"""Writers of usage batches, and indexes for pruning."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a table and two indexes."""
    op.create_table(
        "keyauth_writers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_keyauth_usage_hour", "keyauth_usage", ["hour"])
    op.create_index("ix_keyauth_sessions_expires_at", "keyauth_sessions", ["expires_at"])
