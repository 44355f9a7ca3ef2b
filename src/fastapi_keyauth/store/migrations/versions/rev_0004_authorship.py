"""Creators and import times of keys, keys disabled by admin, and reasons and permissions of events."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_keys = sa.table("keyauth_keys", sa.column("id"), sa.column("owner_id"), sa.column("created_by"))
_events = sa.table(
    "keyauth_events",
    sa.column("id"),
    sa.column("key_id"),
    sa.column("event"),
    sa.column("actor"),
    sa.column("by_admin", sa.Boolean()),
)


def upgrade() -> None:
    """Add the columns and an index, and fill them from the history."""
    op.add_column("keyauth_keys", sa.Column("created_by", sa.String(300)))
    op.add_column("keyauth_keys", sa.Column("imported_at", sa.DateTime(timezone=True)))
    # A default of the database: workers of the previous version insert rows without these columns.
    op.add_column(
        "keyauth_keys", sa.Column("disabled_by_admin", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("keyauth_events", sa.Column("reason", sa.String(500)))
    op.add_column("keyauth_events", sa.Column("by_admin", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_keyauth_keys_created_by", "keyauth_keys", ["created_by"])
    _rename_system()
    _fill_created_by()
    _fill_by_admin()


def _rename_system() -> None:
    op.execute(sa.update(_events).where(_events.c.actor == "system").values(actor="code"))


def _fill_created_by() -> None:
    created = (_events.c.key_id == _keys.c.id) & (_events.c.event == "created")
    creator = sa.select(_events.c.actor).where(created).order_by(_events.c.id).limit(1).scalar_subquery()
    op.execute(sa.update(_keys).values(created_by=creator))


def _fill_by_admin() -> None:
    """Mark what a user or key did to a key of another owner: only ``admin`` could."""
    owner = sa.select(_keys.c.owner_id).where(_keys.c.id == _events.c.key_id).scalar_subquery()
    actors = _keys.alias()
    owner_of_actor = sa.select(actors.c.owner_id).where("key:" + actors.c.id == _events.c.actor).scalar_subquery()
    is_other_user = _events.c.actor.like("user:%") & (_events.c.actor != "user:" + owner)
    is_other_key = _events.c.actor.like("key:%") & (owner_of_actor != owner)
    op.execute(sa.update(_events).where(is_other_user | is_other_key).values(by_admin=sa.true()))
