"""The order in which management calls get a connection."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fastapi_keyauth.concurrency.uncancellable import ShieldedTasks
from fastapi_keyauth.errors import TemporarilyUnavailable
from fastapi_keyauth.keys import turns
from fastapi_keyauth.keys.turns import PLACES, Turns

Commit = Callable[[], Awaitable[str]]


class Stage:
    """Changes that hold their turn until they are released, in the order in which they began."""

    def __init__(self) -> None:
        self.turns = Turns(ShieldedTasks())
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, name: str, owner: str, key: str | None, *, is_revocation: bool = False) -> asyncio.Task[str]:
        ended = self._ends[name] = asyncio.Event()

        async def commit() -> str:
            self.began.append(name)
            await ended.wait()
            return name

        async def publish(committed: str) -> str:
            return committed

        return asyncio.create_task(
            self.turns.change(owner, key, commit, publish, is_revocation=is_revocation), name=name
        )

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_key_has_one_change_at_a_time_and_a_crowd_leaves_places_free() -> None:
    stage = Stage()
    for number in range(10):
        stage.start(f"m{number}", "mallory", "one key")
    stage.start("a", "ada", "another key")
    await settle()
    assert stage.began == ["m0", "a"]
    await stage.end("m0")
    assert stage.began == ["m0", "a", "m1"]


async def test_owners_take_turns() -> None:
    stage = Stage()
    for number in range(10):
        stage.start(f"m{number}", "mallory", f"key {number}")
    stage.start("a", "ada", "hers")
    await settle()
    assert stage.began == [f"m{number}" for number in range(PLACES)]
    await stage.end("m0")
    await stage.end("m1")
    assert stage.began[PLACES:] == [f"m{PLACES}", "a"]


async def test_a_revocation_passes_the_changes_to_its_own_key() -> None:
    stage = Stage()
    for number in range(10):
        stage.start(f"m{number}", "mallory", "one key" if number else None)
    await settle()
    revoking = stage.start("r", "mallory", "one key", is_revocation=True)
    await settle()
    assert stage.began[-1] == "r"
    await stage.end("r")
    assert await revoking == "r"


async def test_who_gives_up_waiting_changes_nothing_and_who_began_completes() -> None:
    stage = Stage()
    running = stage.start("a", "ada", "one key")
    waiting = stage.start("b", "ada", "one key")
    third = stage.start("c", "ada", "one key")
    await settle()
    waiting.cancel()
    running.cancel()
    await settle()
    assert stage.began == ["a"], "the turn is kept although nobody waits for its result"
    await stage.end("a")
    assert stage.began == ["a", "c"]
    await stage.end("c")
    assert await third == "c"
    assert not stage.turns._key_turns


async def test_too_many_that_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING_OF_OWNER", 2)
    stage = Stage()
    for number in range(3):
        stage.start(f"m{number}", "mallory", "one key")
    await settle()
    with pytest.raises(TemporarilyUnavailable):
        await stage.start("m3", "mallory", "one key")
