"""Two products, by their key prefix, on one database: neither sees the rows of the other."""

import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import text
from starlette.requests import HTTPConnection

from fastapi_keyauth import InvalidApiKey, KeyAuth, KeyAuthSettings, KeyNotFound
from fastapi_keyauth.domain.tokens import format_token
from fastapi_keyauth.store import UsageStore
from tests.helpers.keys import authenticate, store_of

ANYONE = HTTPConnection({"type": "http"})


def make_auth(url: str, prefix: str) -> KeyAuth:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "imported_prefixes": ["*"], "max_keys_per_owner": 1}
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=url, key_prefix=prefix, **cheap))


async def test_keys_of_another_product_are_not_accepted_listed_or_changed(database_url: str) -> None:
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        created = await partner.keys.create("mallory", "n", allowed_origins=["https://a.example"])
        key_id = created.key.id
        secret = created.token.rsplit("_", 1)[1][:-6]
        with pytest.raises(InvalidApiKey):
            await authenticate(admin, format_token("adm", "live", key_id, secret))
        assert (await admin.keys.list()).items == []
        assert await store_of(admin).origins_of_active_keys(admin._parts.now()) == frozenset()
        await authenticate(partner, created.token)
        await partner._parts.usage.flush()
        for prefix, found in (("prt", 1), ("adm", 0)):
            usage = await UsageStore(admin._parts.database, prefix, 192).of_keys([key_id], 0, 2**30, None)
            assert len(usage) == found
        for change in (
            admin.keys.get(key_id),
            admin.keys.update(key_id, name="x"),
            admin.keys.rotate(key_id, timedelta(0)),
            admin.keys.revoke(key_id),
            admin.keys.events(key_id),
            admin.keys.usage(key_id),
        ):
            with pytest.raises(KeyNotFound):
                await change
        await store_of(admin).check_room("mallory", 1)  # keys of another product take up no room
        assert (await authenticate(partner, created.token)).name == "n"


async def test_imported_keys_of_another_product_are_not_accepted(database_url: str) -> None:
    token = "old-token-of-a-partner"
    digest = hashlib.sha256(token.encode()).hexdigest()
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        await partner.keys.import_keys([{"owner_id": "mallory", "name": "n", "hash": digest}])
        assert (await authenticate(partner, token)).name == "n"
        with pytest.raises(InvalidApiKey):
            await authenticate(admin, token)


async def test_sessions_of_another_product_are_neither_accepted_nor_ended(database_url: str) -> None:
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        session = await partner.sessions.create("mallory")
        assert await admin.sessions.resolve(session, ANYONE) is None
        await admin.sessions.revoke_all("mallory")
        await admin.sessions.revoke(session)
        assert await partner.sessions.resolve(session, ANYONE) is not None


async def test_an_owner_of_another_product_is_another_owner(database_url: str) -> None:
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        created = await partner.keys.acting_as("user:mallory").create("mallory", "n")
        session = await partner.sessions.create("mallory")
        await admin.owners.suspend("mallory")
        await admin.owners.revoke_keys("mallory")
        await admin.owners.erase("mallory")
        assert (await authenticate(partner, created.token)).name == "n"
        assert await partner.sessions.resolve(session, ANYONE) is not None
        assert (await partner.owners.get("mallory")).suspended_at is None
        assert (await partner.keys.get(created.key.id)).created_by == "user:mallory"
        assert (await partner.keys.events(created.key.id)).items[0].actor == "user:mallory"


async def test_changes_of_another_product_are_left_to_its_workers(database_url: str) -> None:
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        created = await partner.keys.create("mallory", "n")
        await partner.keys.update(created.key.id, name="m")
        assert len(await partner._parts.pending_changes.find(10)) == 1
        assert await admin._parts.pending_changes.find(10) == []


async def test_rows_from_before_belong_to_every_product(database_url: str) -> None:
    async with make_auth(database_url, "prt") as partner, make_auth(database_url, "adm") as admin:
        created = await partner.keys.create("mallory", "n")
        async with partner._parts.database.write() as connection:
            await connection.execute(text("UPDATE keyauth_keys SET prefix = NULL"))
        assert (await admin.keys.get(created.key.id)).name == "n"
        assert (await authenticate(partner, created.token)).name == "n"
