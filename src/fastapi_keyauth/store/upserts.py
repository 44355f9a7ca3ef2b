"""INSERT statements with ``ON CONFLICT``, which SQLAlchemy has only in its dialects."""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from fastapi_keyauth.store.database import Database


def insert_into(target: Table, database: Database) -> Any:
    """Return an INSERT that can have an ``ON CONFLICT`` clause."""
    return sqlite.insert(target) if database.is_sqlite else postgresql.insert(target)
