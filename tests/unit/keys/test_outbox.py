"""Changes are announced to all workers, and again until that succeeds."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_keyauth.errors import ChangePending, LimiterUnavailable, StoreUnavailable
from fastapi_keyauth.keys import outbox
from fastapi_keyauth.keys.outbox import Outbox
from fastapi_keyauth.limiter.protocol import Unsettled

NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEY = ("key1", "ada")


class Limiter:
    """Records the generations that were bumped."""

    def __init__(self) -> None:
        self.bumped: list[tuple[str, ...]] = []
        self.failure: Exception | None = None
        self.slow_owners: set[str] = set()

    async def bump_generation(self, key_id: str, owner_id: str) -> None:
        self._bump(key_id, owner_id)

    async def bump_owner_generation(self, owner_id: str) -> None:
        if owner_id in self.slow_owners:
            for _ in range(10):
                await asyncio.sleep(0)
        self._bump(owner_id)

    def _bump(self, *what: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.bumped.append(what)


class Store:
    """The rows of pending changes."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[str, str]] = {}
        self.is_available = True
        self.forgot_before: list[datetime] = []
        self.reads = 0

    async def find(self, limit: int) -> list[tuple[int, str, str]]:
        self._check()
        self.reads += 1
        return [(row_id, *row) for row_id, row in list(self.rows.items())[:limit]]

    async def delete(self, ids: list[int]) -> None:
        self._check()
        for row_id in ids:
            del self.rows[row_id]

    async def delete_before(self, moment: datetime) -> None:
        self.forgot_before.append(moment)

    def _check(self) -> None:
        if not self.is_available:
            raise StoreUnavailable("test")


class Stage:
    def __init__(self, *, is_shared: bool = True) -> None:
        self.limiter, self.store = Limiter(), Store()
        self.now = NOW
        limiter: Any = self.limiter
        store: Any = self.store
        self.outbox = Outbox(limiter, store, is_shared, lambda: self.now)


async def test_an_announced_change_leaves_no_row() -> None:
    stage = Stage()
    stage.store.rows = {1: KEY, 2: KEY}
    await stage.outbox.publish(*KEY, 1)
    await stage.outbox.publish(*KEY, None)
    assert stage.limiter.bumped == [KEY] * 2
    assert set(stage.store.rows) == {2}


async def test_a_change_of_an_owner_is_announced_for_all_its_keys() -> None:
    stage = Stage()
    await stage.outbox.publish("", "ada", None)
    assert stage.limiter.bumped == [("ada",)]


async def test_a_process_without_redis_leaves_its_rows_for_those_that_have_it() -> None:
    stage = Stage(is_shared=False)
    stage.store.rows = {1: KEY}
    await stage.outbox.publish(*KEY, 1)
    await stage.outbox.drain()
    assert set(stage.store.rows) == {1}
    assert (stage.store.reads, stage.store.forgot_before) == (1, [])
    stage.now += timedelta(hours=1)
    for _ in range(2):
        await stage.outbox.drain()
    assert stage.store.forgot_before == [stage.now - timedelta(days=1)]
    stage.now += timedelta(minutes=59)
    await stage.outbox.drain()
    assert len(stage.store.forgot_before) == 1


async def test_a_change_that_could_not_be_announced_is_announced_later_without_the_database() -> None:
    stage = Stage()
    stage.store.rows = {1: KEY}
    stage.limiter.failure = LimiterUnavailable("test")
    with pytest.raises(ChangePending) as pending:
        await stage.outbox.publish(*KEY, 1)
    assert pending.value.holds_within_s == 10
    assert set(stage.store.rows) == {1}
    await stage.outbox.drain()
    assert stage.limiter.bumped == []
    stage.limiter.failure, stage.store.is_available = None, False
    await stage.outbox.drain()
    await stage.outbox.drain()
    assert stage.limiter.bumped == [KEY]
    stage.store.is_available = True
    await stage.outbox.drain()
    assert (stage.limiter.bumped, stage.store.rows) == ([KEY] * 2, {})


async def test_a_row_that_cannot_be_deleted_does_not_fail_the_change() -> None:
    stage = Stage()
    stage.store.is_available = False
    await stage.outbox.publish(*KEY, 1)
    assert stage.limiter.bumped == [KEY]


async def test_all_rows_are_announced_in_batches_and_each_key_once_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_BATCH", 2)
    stage = Stage()
    stage.store.rows = {1: KEY, 2: KEY, 3: ("key2", "bob"), 4: ("", "bob")}
    await stage.outbox.drain()
    assert stage.limiter.bumped[0] == KEY
    assert sorted(stage.limiter.bumped[1:]) == [("bob",), ("key2", "bob")]
    assert (stage.store.rows, stage.store.reads) == ({}, 3)
    await stage.outbox.drain()
    assert (len(stage.limiter.bumped), stage.store.reads) == (3, 4)


async def test_rows_stay_until_they_are_announced() -> None:
    stage = Stage()
    stage.store.rows = {1: KEY}
    stage.limiter.failure = LimiterUnavailable("test")
    await stage.outbox.drain()
    assert set(stage.store.rows) == {1}


@pytest.mark.parametrize(("failure", "lines"), [(Unsettled("replaced"), 1), (LimiterUnavailable("away"), 0)])
async def test_a_primary_that_may_be_replaced_is_logged_once(
    failure: Exception, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fastapi_keyauth")
    stage = Stage()
    stage.limiter.failure = failure
    for _ in range(2):
        with pytest.raises(ChangePending):
            await stage.outbox.publish(*KEY, 1)
        assert len(caplog.messages) == lines


async def test_changes_of_many_owners_are_all_tried_before_one_that_failed_is_reported() -> None:
    stage = Stage()
    stage.store.rows = {1: ("", "ada"), 2: ("", "bob")}
    await stage.outbox.publish_owners({"ada": 1, "bob": 2})
    assert (stage.limiter.bumped, stage.store.rows) == ([("ada",), ("bob",)], {})
    stage.limiter.failure = LimiterUnavailable("test")
    with pytest.raises(ChangePending):
        await stage.outbox.publish_owners({"ada": 1, "bob": 2})
    stage.limiter.failure = None
    await stage.outbox.drain()
    assert sorted(stage.limiter.bumped[2:]) == [("ada",), ("bob",)]


async def test_a_change_that_failed_is_reported_once_the_slower_ones_are_announced() -> None:
    stage = Stage()
    stage.store.rows = {2: ("", "bob")}
    stage.limiter.slow_owners = {"bob"}
    real = stage.limiter._bump

    def fail_for_ada(*what: str) -> None:
        if what == ("ada",):
            raise LimiterUnavailable("test")
        real(*what)

    stage.limiter._bump = fail_for_ada  # type: ignore[method-assign]  # one owner fails, the other does not
    with pytest.raises(ChangePending):
        await stage.outbox.publish_owners({"ada": 1, "bob": 2})
    assert (stage.limiter.bumped, stage.store.rows) == ([("bob",)], {})
