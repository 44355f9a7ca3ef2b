"""Usage is written in batches, each exactly once, even if responses are lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from fastapi_keyauth import KeyAuth, StoreUnavailable
from fastapi_keyauth.errors import Refusal
from fastapi_keyauth.store import Database
from fastapi_keyauth.store.tables import WriterRow, table
from tests.helpers.keys import authenticate, make_key

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the next commits succeed, and lose their responses."""
    left = 0
    real = Database.write

    @asynccontextmanager
    async def write(self: Database, **options: Any) -> AsyncIterator[Any]:
        nonlocal left
        async with real(self, **options) as connection:
            yield connection
        if left:
            left -= 1
            raise StoreUnavailable

    def lose(count: int) -> None:
        nonlocal left
        left = count

    monkeypatch.setattr(Database, "write", write)
    return lose


async def refuse(auth: KeyAuth, token: str) -> None:
    with pytest.raises(Refusal):
        await authenticate(auth, token)


async def admitted(auth: KeyAuth, key_id: str) -> int:
    return sum(hour.admitted for hour in await auth.keys.usage(key_id, hours=2))


async def test_a_batch_whose_answer_was_lost_is_counted_once(
    make_auth: MakeAuth, lose_answers: Callable[[int], None]
) -> None:
    async with make_auth() as auth:
        created, refused = await make_key(auth), await auth.keys.create(owner_id="alice", name="off")
        await auth.keys.update(refused.key.id, enabled=False)
        for _ in range(3):
            await authenticate(auth, created.token)
        await refuse(auth, refused.token)
        lose_answers(2)
        await auth._parts.usage.flush()
        assert auth._parts.usage.count_lost() >= 1
        for _ in range(4):  # what comes meanwhile goes into a batch of its own
            await authenticate(auth, created.token)
        await auth._parts.usage.flush()
        await auth._parts.usage.flush()
        assert auth._parts.usage.count_lost() == 0
        for _ in range(2):
            assert await admitted(auth, created.key.id) == 7
            assert sum(hour.refused for hour in await auth.keys.usage(refused.key.id)) == 1
            await auth._parts.usage.flush()


async def test_workers_and_restarts_write_under_names_of_their_own(make_auth: MakeAuth) -> None:
    here, there = make_auth(), make_auth()
    async with here, there:
        created = await make_key(here)
        for auth in (here, there):
            await authenticate(auth, created.token)
            await auth._parts.usage.flush()
    async with here:
        await authenticate(here, created.token)
        await here._parts.usage.flush()
        assert await admitted(here, created.key.id) == 3
        async with here._parts.database.read() as connection:
            rows = await connection.execute(select(func.count()).select_from(table(WriterRow)))
            assert rows.scalar_one() == 3


async def test_what_two_callers_ask_for_concurrently_is_written_once(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
        await asyncio.gather(*(auth._parts.usage.flush() for _ in range(5)))
        assert await admitted(auth, created.key.id) == 1


async def test_counts_that_are_dropped_are_logged_once(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastapi_keyauth.store.usage_buffer.MAX_COUNTS", 1)
    async with make_auth() as auth:
        for _ in range(3):
            await authenticate(auth, (await make_key(auth)).token)
    assert sum("not counted any more" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("refusal", ["over its limit", "disabled", "not from this address"])
async def test_a_correct_secret_counts_as_used_even_if_the_request_was_refused(
    make_auth: MakeAuth, refusal: str
) -> None:
    async with make_auth() as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=1)
        await authenticate(auth, created.token)
        before = await auth.keys.get(created.key.id)
        if refusal == "disabled":
            await auth.keys.update(created.key.id, enabled=False)
        elif refusal == "not from this address":
            await auth.keys.update(created.key.id, allowed_ips=["203.0.113.7"])
        with pytest.raises(Refusal):
            await authenticate(auth, created.token)
        after = await auth.keys.get(created.key.id)
        [old], [new] = before.secrets, after.secrets
        assert old.last_used_at is not None
        assert new.last_used_at is not None
        assert new.last_used_at > old.last_used_at
        assert after.last_used_at == before.last_used_at
