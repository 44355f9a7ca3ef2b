"""Usage by unit, closed days, and how far days are closed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_keys = sa.table("keyauth_keys", sa.column("id"), sa.column("prefix"))
_usage = sa.table("keyauth_usage", sa.column("key_id"), sa.column("hour"), sa.column("admitted"), sa.column("refused"))
_hours = sa.table(
    "keyauth_usage_hours",
    *(sa.column(name) for name in ("key_id", "hour", "unit", "prefix", "source", "units", "refused")),
)


def upgrade() -> None:
    """Add three tables, and carry the hours over."""
    op.create_table(
        "keyauth_usage_hours",
        sa.Column("key_id", sa.String(12), primary_key=True),
        sa.Column("hour", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("unit", sa.String(32), primary_key=True),
        sa.Column("prefix", sa.String(16), primary_key=True),
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_keyauth_usage_hours_hour", "keyauth_usage_hours", ["prefix", "hour"])
    op.create_table(
        "keyauth_usage_days",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.String(255), nullable=False),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("unit", sa.String(32), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
    )
    names = ["prefix", "day", "key_id", "unit"]
    op.create_index("ux_keyauth_usage_days", "keyauth_usage_days", names, unique=True)
    op.create_index("ix_keyauth_usage_days_key", "keyauth_usage_days", ["key_id", "day"])
    op.create_index("ix_keyauth_usage_days_owner", "keyauth_usage_days", ["owner_id", "day"])
    op.create_table(
        "keyauth_usage_closings",
        sa.Column("prefix", sa.String(16), primary_key=True),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("open_day", sa.Integer(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
    )
    _carry_over()


def _carry_over() -> None:
    # The old table stays as it is: workers of the version before go on counting in it, and the workers of this one
    # carry over what they add.
    columns = (
        _usage.c.key_id,
        _usage.c.hour,
        sa.literal("requests"),
        sa.func.coalesce(_keys.c.prefix, ""),
        sa.literal("v0.1"),
        _usage.c.admitted,
        _usage.c.refused,
    )
    found = sa.select(*columns).select_from(_usage.join(_keys, _keys.c.id == _usage.c.key_id))
    op.execute(_hours.insert().from_select([column.name for column in _hours.c], found))
