"""Pages end when they become too large, and following their cursors finds every item once."""

from typing import Any

import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.store import pages

SMALL_PAGE = 10_000
NOTES = "x" * 3000


@pytest.fixture
async def auth(database_url: str, monkeypatch: pytest.MonkeyPatch) -> KeyAuth:
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", SMALL_PAGE)
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, argon2_time_cost=1, argon2_memory_kib=8))


async def test_a_list_of_large_keys_is_cut_and_complete(auth: KeyAuth) -> None:
    async with auth:
        made = [(await auth.keys.create("ada", f"{n}", metadata={"notes": NOTES})).key.id for n in range(8)]
        found: list[str] = []
        cursor: Any = None
        while True:
            page = await auth.keys.list(cursor=cursor, limit=200)
            assert len(page.items) <= 3
            found += [key.id for key in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(made)
        assert len((await auth.keys.list(limit=2)).items) == 2


async def test_a_history_of_large_changes_is_cut_and_complete(auth: KeyAuth) -> None:
    async with auth:
        key_id = (await auth.keys.create("ada", "n")).key.id
        for n in range(6):
            await auth.keys.update(key_id, metadata={"notes": f"{n}{NOTES}"})
        found: list[str] = []
        cursor: Any = None
        while True:
            page = await auth.keys.events(key_id, cursor=cursor, limit=200)
            assert 1 <= len(page.items) <= 4
            found += [event.event for event in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == ["updated"] * 6 + ["created"]


async def test_an_item_that_is_too_large_is_a_page_of_its_own(auth: KeyAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 1)
    async with auth:
        for n in range(2):
            await auth.keys.create("ada", f"{n}", metadata={"notes": NOTES})
        page = await auth.keys.list()
        assert ([key.name for key in page.items], page.next_cursor is None) == (["1"], False)
        page = await auth.keys.list(cursor=page.next_cursor)
        assert ([key.name for key in page.items], page.next_cursor) == (["0"], None)
