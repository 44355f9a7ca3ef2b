"""A check of whether the database user may write, without changing anything."""

import os
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NO_DELETE = ("SELECT", "INSERT", "UPDATE")
_NO_UPDATE = ("SELECT", "INSERT", "DELETE")

TABLE_PRIVILEGES: Mapping[str, tuple[str, ...]] = {
    "keyauth_changes": _NO_UPDATE,
    "keyauth_events": _NO_DELETE,
    "keyauth_keys": _NO_DELETE,
    "keyauth_notices": _NO_UPDATE,
    "keyauth_origins": _NO_UPDATE,
    "keyauth_owners": _ALL,
    "keyauth_secrets": _NO_DELETE,
    "keyauth_sessions": _ALL,
    "keyauth_usage": _ALL,
    "keyauth_usage_closings": _NO_DELETE,
    "keyauth_usage_days": _NO_DELETE,
    "keyauth_usage_hours": _ALL,
    "keyauth_writers": _ALL,
}
"""Permissions that this package requires on PostgreSQL. ``docs/how-to/permissions.md`` lists them as GRANT."""
NUMBERED_TABLES = ("keyauth_changes", "keyauth_events", "keyauth_secrets", "keyauth_usage_days")
"""Tables whose column ``id`` has a sequence, which requires ``USAGE``."""

# A table that does not exist is left out: the revision of the tables is checked elsewhere.
_MISSING = text(
    "SELECT privilege || ' on ' || name FROM"
    " unnest(CAST(:names AS text[]), CAST(:privileges AS text[])) AS needed(name, privilege)"
    " WHERE NOT has_table_privilege(to_regclass(name), privilege)"
    " UNION ALL SELECT 'USAGE on ' || pg_get_serial_sequence(name, 'id') FROM"
    " unnest(CAST(:numbered AS text[])) AS numbered(name) WHERE to_regclass(name) IS NOT NULL"
    " AND NOT has_sequence_privilege(pg_get_serial_sequence(name, 'id'), 'USAGE, UPDATE')"
)


async def find_write_refusal(connection: AsyncConnection, url: str) -> str | None:
    """Return why keys cannot be created or changed. Added in 0.2.

    Args:
        connection: A connection to the database.
        url: URL of the database.

    Returns:
        The end of a sentence that begins with the database. None if writes are accepted.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        is_read_only = _is_read_only(Path(parsed.database or ":memory:"))
        return "rejects writes: the file or its folder is read-only for this user." if is_read_only else None
    if (await connection.execute(text("SHOW transaction_read_only"))).scalar_one() == "on":
        return "rejects writes: it is a replica, or default_transaction_read_only is on."
    needed = [(name, privilege) for name, privileges in TABLE_PRIVILEGES.items() for privilege in privileges]
    values = {
        "names": [name for name, _ in needed],
        "privileges": [privilege for _, privilege in needed],
        "numbered": list(NUMBERED_TABLES),
    }
    missing = (await connection.execute(_MISSING, values)).scalars().all()
    return f"lacks permissions for this role: {', '.join(missing)}." if missing else None


def _is_read_only(file: Path) -> bool:
    # SQLite creates its write-ahead log beside the file.
    return file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
