"""Limited concurrency, owners served in turn, and bounds of each lane."""

import asyncio

import pytest

from fastapi_keyauth.concurrency.fair_semaphore import FairSemaphore, TooManyWaiting


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Visitors:
    """Owners that acquire the semaphore and hold it."""

    def __init__(self, turns: FairSemaphore) -> None:
        self.turns = turns
        self.inside: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, owner: str, *, lane: str = "") -> asyncio.Task[None]:
        async def visit() -> None:
            await self.turns.acquire(owner, lane=lane)
            self.inside.append(owner)

        task = asyncio.create_task(visit())
        self.tasks.append(task)
        await settle()
        return task

    async def next_one(self) -> str:
        self.turns.release()
        await settle()
        return self.inside[-1]


async def test_concurrency_is_limited() -> None:
    visitors = Visitors(FairSemaphore(2, 10, 10))
    for _ in range(5):
        await visitors.come("a")
    assert len(visitors.inside) == 2
    assert [await visitors.next_one() for _ in range(3)] == ["a"] * 3
    for _ in range(2):
        visitors.turns.release()
    await visitors.come("b")
    assert visitors.inside[-1] == "b"


async def test_a_crowd_of_one_owner_delays_no_other_owner() -> None:
    visitors = Visitors(FairSemaphore(1, 100, 100))
    for owner in "aaaaaabbc":
        await visitors.come(owner)
    assert "".join([await visitors.next_one() for _ in range(8)]) == "abcabaaa"


async def test_a_full_lane_refuses_waiters_and_closes_no_other_lane() -> None:
    visitors = Visitors(FairSemaphore(1, 3, 2))
    for owner in "aaa":
        await visitors.come(owner)
    with pytest.raises(TooManyWaiting):
        await visitors.turns.acquire("a")
    await visitors.come("b")
    with pytest.raises(TooManyWaiting):  # of all of them
        await visitors.turns.acquire("c")
    for _ in range(2):
        await visitors.come("a", lane="other")
    with pytest.raises(TooManyWaiting):
        await visitors.turns.acquire("a", lane="other")
    assert "".join([await visitors.next_one() for _ in range(5)]) == "abaaa"
    assert not visitors.turns._by_owner_and_lane  # owners who left use no memory


async def test_a_cancelled_waiter_leaves_no_gap() -> None:
    visitors = Visitors(FairSemaphore(1, 4, 4))
    waiting = [await visitors.come(owner) for owner in "abcd"]
    waiting[1].cancel()
    await settle()
    waiting[2].cancel()
    assert await visitors.next_one() == "d"  # c had no time to leave yet
    visitors.turns.release()
    async with visitors.turns.slot("e"):
        pass
    for owner in "aaaaa":  # a waiter that left is not counted
        await visitors.come(owner)
    assert not any(task.done() and task.exception() for task in visitors.tasks[-5:])


async def test_a_turn_that_comes_while_its_waiter_is_cancelled_goes_to_the_next() -> None:
    visitors = Visitors(FairSemaphore(1, 4, 4))
    _, leaving, staying = [await visitors.come(owner) for owner in "abc"]
    visitors.turns.release()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    assert staying.done()
    assert visitors.inside == ["a", "c"]


async def test_without_an_owner_no_bound_applies_and_others_have_theirs_to_themselves() -> None:
    turns = FairSemaphore(1, 2, 2)
    await turns.acquire("a")
    unbounded = [asyncio.create_task(turns.acquire(None)) for _ in range(10)]
    bounded = [asyncio.create_task(turns.acquire("b")) for _ in range(2)]
    await settle()
    with pytest.raises(TooManyWaiting):
        await turns.acquire("b")
    turns.release()
    turns.release()
    await settle()
    assert [task.done() for task in (unbounded[0], bounded[0])] == [True, True]  # they take turns
    for _ in range(10):
        turns.release()
        await settle()
    await asyncio.gather(*unbounded, *bounded)
