"""Reads of keys by tokens: those that arrive while others are running share one statement."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth, StoreUnavailable
from fastapi_keyauth.store.token_reads import MAX_RUNNING, MAX_TOKENS
from tests.helpers.keys import store_of

MakeAuth = Callable[..., KeyAuth]

pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)


class HeldDatabase:
    """Holds back the statements of the store until they are released, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, auth: KeyAuth) -> None:
        self.statements = 0
        self.opened = asyncio.Event()
        self.error: Exception | None = None
        self._fetch = auth._parts.database.fetch
        monkeypatch.setattr(auth._parts.database, "fetch", self)

    async def __call__(self, statement: Any, **options: Any) -> Sequence[Any]:
        self.statements += 1
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        return await self._fetch(statement, **options)


async def create(auth: KeyAuth, count: int) -> list[tuple[str, str]]:
    """Return the id and the tag of some new keys."""
    from fastapi_keyauth.domain.tokens import TokenParser, secret_tag

    parsed = [TokenParser("ka").parse((await auth.keys.create(owner_id="a", name="k")).token) for _ in range(count)]
    return [(token.key_id, secret_tag(token.secret)) for token in parsed]


async def start_all(auth: KeyAuth, questions: list[tuple[str, str]]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(store_of(auth).find_for_token(*question)) for question in questions]
    await asyncio.sleep(0)  # each of them has asked
    return tasks


async def test_each_token_gets_the_row_of_its_own_key(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth() as auth:
        known = await create(auth, 5)
        database = HeldDatabase(monkeypatch, auth)
        strangers = [("unknownunkno", known[0][1]), (known[0][0], known[1][1]), (known[1][0], "00000000")]
        tasks = await start_all(auth, [*known, *strangers, known[2]])
        database.opened.set()
        found = await asyncio.gather(*tasks)
        assert [[key.id for key, _ in rows] for rows in found] == [
            *([key_id] for key_id, _ in known),
            *([] for _ in strangers),
            [known[2][0]],
        ]
        assert all(secret_hash.startswith("$argon2id$") for rows in found for _, secret_hash in rows)


async def test_tokens_that_wait_share_statements(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth() as auth:
        (question,) = await create(auth, 1)
        database = HeldDatabase(monkeypatch, auth)
        tasks = await start_all(auth, [question] * (MAX_RUNNING + MAX_TOKENS + 1))
        database.opened.set()
        await asyncio.gather(*tasks)
        assert database.statements == MAX_RUNNING + 2


async def test_client_that_leaves_takes_nothing_from_the_others(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        questions = await create(auth, 6)
        database = HeldDatabase(monkeypatch, auth)
        tasks = await start_all(auth, questions)
        tasks[0].cancel()
        tasks[3].cancel()
        database.opened.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(rows) for rows in found] == [
            asyncio.CancelledError if number in (0, 3) else list for number in range(6)
        ]


async def test_outage_raises_a_separate_error_for_every_waiting_request(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        questions = await create(auth, 6)
        database = HeldDatabase(monkeypatch, auth)
        tasks = await start_all(auth, questions)
        database.error = StoreUnavailable()
        database.opened.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) for error in errors)
        assert len({id(error) for error in errors}) == len(errors)
        database.error = None
        assert await store_of(auth).find_for_token(*questions[0])


def test_reads_that_another_event_loop_left_behind_hold_no_place(make_auth: MakeAuth) -> None:
    auth = make_auth()
    reads = store_of(auth)._token_reads

    async def leave_behind() -> None:
        async with auth:
            await auth.keys.create(owner_id="a", name="k")
            forever = asyncio.get_running_loop().create_future()
            reads._running = {asyncio.ensure_future(asyncio.shield(forever)) for _ in range(MAX_RUNNING)}

    async def read() -> list[Any]:
        async with auth:
            return await asyncio.wait_for(store_of(auth).find_for_token("unknownunkno", "00000000"), 60)

    asyncio.run(leave_behind())
    assert asyncio.run(read()) == []
