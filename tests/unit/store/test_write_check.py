"""Permissions of a PostgreSQL role, compared with those that this package requires."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.store import Database, PruneStore
from fastapi_keyauth.store.tables import metadata
from fastapi_keyauth.store.write_check import NUMBERED_TABLES, TABLE_PRIVILEGES, find_write_refusal
from tests.helpers.keys import authenticate
from tests.helpers.servers import PASSWORD, Server

PAGE = Path(__file__).parents[3] / "docs" / "how-to/permissions.md"


@pytest.fixture
async def admin(postgres: Server) -> AsyncIterator[asyncpg.Connection]:
    async with make_auth(postgres.url):
        pass  # creates the tables
    connection = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
    await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    for statement in documented_grants():
        await connection.execute(statement)
    yield connection
    await connection.execute("DROP OWNED BY app")
    await connection.execute("DROP ROLE app")
    await connection.close()


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url.replace("//keyauth:", "//app:")


def documented_grants() -> list[str]:
    section = PAGE.read_text().partition("\n## PostgreSQL\n")[2]
    return re.findall(r"^GRANT [^;]+;", section.partition("```sql")[2].partition("```")[0], re.MULTILINE)


def make_auth(url: str) -> KeyAuth:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=url, **cheap))


async def find_refusal(url: str) -> str | None:
    database = Database(url)
    try:
        async with database.opening(), database.read() as connection:
            return await find_write_refusal(connection, url)
    finally:
        await database.close()


def test_every_table_has_its_privileges() -> None:
    assert set(TABLE_PRIVILEGES) == set(metadata.tables)
    numbered = {table.name for table in metadata.tables.values() if table.autoincrement_column is not None}
    assert set(NUMBERED_TABLES) == numbered


@pytest.mark.usefixtures("admin")
async def test_documented_permissions_suffice_for_the_life_of_a_key(url: str) -> None:
    assert await find_refusal(url) is None
    async with make_auth(url) as auth:
        created = await auth.keys.create(owner_id="ada", name="key", allowed_origins=["https://a.example"])
        session = await auth.sessions.create("ada")
        await auth.keys.update(created.key.id, allowed_origins=[])
        await authenticate(auth, created.token)
        await auth.keys.rotate(created.key.id)
        await auth.keys.revoke(created.key.id)
        await auth.sessions.revoke(session)
        await auth._parts.usage.flush()
        assert auth._parts.usage.count_lost() == 0
        await PruneStore(auth._parts.database, "ka").prune(datetime.now(UTC), 0)


@pytest.mark.parametrize(
    "permission",
    [
        "USAGE on public.keyauth_events_id_seq",
        *(f"{privilege} on {table}" for table, privileges in TABLE_PRIVILEGES.items() for privilege in privileges),
    ],
)
async def test_each_missing_permission_is_named(admin: asyncpg.Connection, url: str, permission: str) -> None:
    privilege, _, name = permission.partition(" on ")
    await admin.execute(f"REVOKE {privilege} ON {'SEQUENCE ' if privilege == 'USAGE' else ''}{name} FROM app")
    assert await find_refusal(url) == f"lacks permissions for this role: {permission}."
