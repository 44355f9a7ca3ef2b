"""A database that is restored to an earlier state under running workers, or recovers from an outage."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from sqlalchemy import delete, func, select, text, update

from fastapi_keyauth import DisabledApiKey, InvalidApiKey, KeyAuth, OwnerSuspended
from fastapi_keyauth.store.tables import EventRow, KeyRow, OwnerRow, SecretRow, table
from tests.helpers.keys import CountedCalls, Gate, authenticate, store_of

MakeAuth = Callable[..., KeyAuth]
events = table(EventRow)


async def go_back(auth: KeyAuth, key_id: str, *then: str) -> None:
    """Restore the state of a backup for a key: disabled, and without the last line of its history."""
    async with auth._parts.database.write() as connection:
        for statement in (
            "UPDATE keyauth_keys SET enabled = false WHERE id = :id",
            "DELETE FROM keyauth_events WHERE id = (SELECT max(id) FROM keyauth_events)",
            *then,
        ):
            await connection.execute(text(statement), {"id": key_id} if ":id" in statement else {})


async def use_a_changed_key(auth: KeyAuth) -> tuple[str, str]:
    """Return the token and the id of a cached key that was enabled again."""
    created = await auth.keys.create("ada", "key")
    await auth.keys.update(created.key.id, enabled=False)
    await auth.keys.update(created.key.id, enabled=True)
    assert (await authenticate(auth, created.token)).name == "key"
    return created.token, created.key.id


@pytest.mark.parametrize(
    "then",
    [
        pytest.param((), id="nothing since"),
        pytest.param(
            (
                "INSERT INTO keyauth_events (id, key_id, event, actor, at, changes) SELECT max(id) + 1, 'other',"
                " 'created', 'x', '2026-01-01 00:00:00', '{}' FROM keyauth_events",
                "INSERT INTO keyauth_events (id, key_id, event, actor, at, changes) SELECT max(id) + 1, 'other',"
                " 'created', 'x', '2026-01-01 00:00:00', '{}' FROM keyauth_events",
            ),
            id="changes of others since",
        ),
    ],
)
async def test_a_restored_database_decides_again(
    make_auth: MakeAuth, then: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        await auth._parts.store.lineage.check()
        token, key_id = await use_a_changed_key(auth)
        await go_back(auth, key_id, *then)
        with caplog.at_level(logging.ERROR, "fastapi_keyauth"):
            await auth._parts.store.lineage.check()
            with pytest.raises(DisabledApiKey):
                await authenticate(auth, token)
            await auth._parts.store.lineage.check()
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert errors == ["the database went back to an earlier state or was replaced: every key is read again"]


async def test_a_suspension_that_a_restore_brings_back_holds_again(make_auth: MakeAuth) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await auth.keys.create("ada", "key")
        await auth.owners.suspend("ada", "unpaid")
        async with auth._parts.database.read() as connection:
            newest = (await connection.execute(select(func.max(events.c.id)))).scalar_one()
        await auth.owners.resume("ada")
        await authenticate(auth, created.token)
        async with auth._parts.database.write() as connection:
            await connection.execute(delete(events).where(events.c.id > newest))
            await connection.execute(update(OwnerRow).values(suspended_at=auth._parts.now()))
        await auth._parts.store.lineage.check()
        with pytest.raises(OwnerSuspended):
            await authenticate(auth, created.token)


async def test_a_database_without_the_key_refuses_it(make_auth: MakeAuth) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        token, _ = await use_a_changed_key(auth)
        async with auth._parts.database.write() as connection:
            for table in (KeyRow, SecretRow, EventRow):
                await connection.execute(delete(table))
        await auth._parts.store.lineage.check()
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, token)


async def test_a_restore_between_a_stop_and_a_start_is_noticed_at_the_start(make_auth: MakeAuth) -> None:
    auth = make_auth(max_staleness_s=3600)
    async with auth:
        token, key_id = await use_a_changed_key(auth)
        await go_back(auth, key_id)
    async with auth:
        with pytest.raises(DisabledApiKey):
            await authenticate(auth, token)


async def test_ordinary_changes_are_not_taken_for_a_restore(
    make_auth: MakeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        tokens = []
        for _ in range(3):
            tokens.append((await use_a_changed_key(auth))[0])
            await auth._parts.store.lineage.check()
        assert "database" not in caplog.text
        for token in tokens:
            assert (await authenticate(auth, token)).name == "key"


async def test_after_an_outage_each_row_is_read_once_and_no_secret_is_hashed_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        token, _ = await use_a_changed_key(auth)
        reads: list[str] = []
        find = store_of(auth).find_for_token

        async def find_for_token(key_id: str, tag: str) -> object:
            reads.append(key_id)
            return await find(key_id, tag)

        monkeypatch.setattr(store_of(auth), "find_for_token", find_for_token)
        hashed = CountedCalls(monkeypatch, auth._parts.hasher, "verify")
        auth._parts.database.on_recovery()
        for _ in range(3):
            await authenticate(auth, token)
        assert len(reads) == 1
        assert hashed._calls.locked(), "hashed again"


async def test_a_row_that_was_read_before_is_not_kept_after(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await auth.keys.create("ada", "key")
        gate = Gate(monkeypatch, auth._parts.hasher, "verify")
        request = asyncio.create_task(authenticate(auth, created.token))
        await gate.reached.wait()
        auth._parts.verifier.key_cache.clear()
        gate.opened.set()
        assert (await request).name == "key"
        await auth._parts.database.settle()
        async with auth._parts.database.write() as connection:
            await connection.execute(text("UPDATE keyauth_keys SET enabled = false"))
        with pytest.raises(DisabledApiKey):
            await authenticate(auth, created.token)
