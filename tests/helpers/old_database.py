"""A database with the tables of the first revision, and rows in them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from fastapi_keyauth.domain.tokens import format_token, hash_session_token, secret_tag
from fastapi_keyauth.store import Database
from fastapi_keyauth.store.tables import EventRow, KeyRow, SecretRow, SessionRow, UsageRow, table

FIRST_TABLES = Path(__file__).with_name("first_tables")
"""Statements that created the tables before there were revisions."""


KEY_ID = "0123456789ab"
SECRET = "s" * 43
# Hash of SECRET, with as little work as Argon2 allows.
HASH = "$argon2id$v=19$m=8,t=1,p=1$YO1HH8fyxOgE8aY0mrH7uQ$GR00kd7iZOgj9sTMcd9JihtaMjmDRV9ZCXvihxhDzEI"


TOKEN = format_token("ka", "live", KEY_ID, SECRET)


LONG_AGO = datetime(2025, 1, 2, tzinfo=UTC)


OLD_EVENTS = (
    {"event": "created", "actor": "system", "address": None},
    {"event": "updated", "actor": "user:root", "address": "198.51.100.9"},
    {"event": "updated", "actor": f"key:{KEY_ID}", "address": "203.0.113.7"},
    {"event": "updated", "actor": "user:ada", "address": "203.0.113.8"},
)


async def run(url: str, work: Callable[[Connection], Any]) -> Any:
    """Run work on a database with any tables."""
    database = Database(url)
    async with database.opening(), database.write() as connection:
        result = await connection.run_sync(work)
    await database.close()
    return result


def make_first_tables(connection: Connection) -> None:
    statements = FIRST_TABLES.joinpath(f"{connection.dialect.name}.sql").read_text("utf-8")
    for statement in statements.split(";"):
        if statement.strip():
            connection.execute(text(statement))


def fill_first_tables(connection: Connection) -> None:
    """Insert a key with a known token, usage, and a session, in the form that the code of that revision wrote."""
    rows: list[tuple[Any, dict[str, Any]]] = [
        (
            KeyRow,
            {
                "id": KEY_ID,
                "name": "old",
                "owner_id": "ada",
                "environment": "live",
                "scopes": ["*"],
                "metadata": {"team": "é"},
                "allowed_origins": [],
                "allowed_ips": [],
                "enabled": True,
                "created_at": LONG_AGO,
            },
        ),
        (
            SecretRow,
            {"key_id": KEY_ID, "tag": secret_tag(SECRET), "hash": HASH, "last4": TOKEN[-4:], "created_at": LONG_AGO},
        ),
        *((EventRow, {"key_id": KEY_ID, **event, "at": LONG_AGO, "changes": {}}) for event in OLD_EVENTS),
        (UsageRow, {"key_id": KEY_ID, "hour": 1, "admitted": 2**40, "refused": 0}),
        (
            SessionRow,
            {
                "token_hash": hash_session_token("ks_old"),
                "user_id": "ada",
                "scopes": ["*"],
                "created_at": LONG_AGO,
                "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
            },
        ),
    ]
    for model, values in rows:
        connection.execute(table(model).insert().values(**values))


async def make_old_database(url: str) -> None:
    def make(connection: Connection) -> None:
        make_first_tables(connection)
        fill_first_tables(connection)

    await run(url, make)
