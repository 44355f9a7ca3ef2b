"""Limited concurrency, owners served in turn, and bounds of each lane."""

import asyncio

import pytest

from fastapi_keyauth.concurrency.fair_semaphore import FairSemaphore, TooManyWaiting


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Owners:
    """Owners that acquire the semaphore and hold it."""

    def __init__(self, semaphore: FairSemaphore) -> None:
        self.semaphore = semaphore
        self.holders: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def acquire(self, owner: str, *, lane: str = "") -> asyncio.Task[None]:
        async def hold() -> None:
            await self.semaphore.acquire(owner, lane=lane)
            self.holders.append(owner)

        task = asyncio.create_task(hold())
        self.tasks.append(task)
        await settle()
        return task

    async def release_to_next(self) -> str:
        self.semaphore.release()
        await settle()
        return self.holders[-1]


async def test_concurrency_is_limited() -> None:
    owners = Owners(FairSemaphore(2, 10, 10))
    for _ in range(5):
        await owners.acquire("a")
    assert len(owners.holders) == 2
    assert [await owners.release_to_next() for _ in range(3)] == ["a"] * 3
    for _ in range(2):
        owners.semaphore.release()
    await owners.acquire("b")
    assert owners.holders[-1] == "b"


async def test_a_crowd_of_one_owner_delays_no_other_owner() -> None:
    owners = Owners(FairSemaphore(1, 100, 100))
    for owner in "aaaaaabbc":
        await owners.acquire(owner)
    assert "".join([await owners.release_to_next() for _ in range(8)]) == "abcabaaa"


async def test_a_full_lane_refuses_waiters_and_closes_no_other_lane() -> None:
    owners = Owners(FairSemaphore(1, 3, 2))
    for owner in "aaa":
        await owners.acquire(owner)
    with pytest.raises(TooManyWaiting):
        await owners.semaphore.acquire("a")
    await owners.acquire("b")
    with pytest.raises(TooManyWaiting):  # of all of them
        await owners.semaphore.acquire("c")
    for _ in range(2):
        await owners.acquire("a", lane="other")
    with pytest.raises(TooManyWaiting):
        await owners.semaphore.acquire("a", lane="other")
    assert "".join([await owners.release_to_next() for _ in range(5)]) == "abaaa"
    assert not owners.semaphore._by_owner_and_lane  # owners who left use no memory


async def test_a_cancelled_waiter_leaves_no_gap() -> None:
    owners = Owners(FairSemaphore(1, 4, 4))
    waiting = [await owners.acquire(owner) for owner in "abcd"]
    waiting[1].cancel()
    await settle()
    waiting[2].cancel()
    assert await owners.release_to_next() == "d"  # c had no time to leave yet
    owners.semaphore.release()
    async with owners.semaphore.slot("e"):
        pass
    for owner in "aaaaa":  # a waiter that left is not counted
        await owners.acquire(owner)
    assert not any(task.done() and task.exception() for task in owners.tasks[-5:])


async def test_a_turn_that_comes_while_its_waiter_is_cancelled_goes_to_the_next() -> None:
    owners = Owners(FairSemaphore(1, 4, 4))
    _, leaving, staying = [await owners.acquire(owner) for owner in "abc"]
    owners.semaphore.release()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    assert staying.done()
    assert owners.holders == ["a", "c"]


async def test_without_an_owner_no_bound_applies_and_others_have_theirs_to_themselves() -> None:
    semaphore = FairSemaphore(1, 2, 2)
    await semaphore.acquire("a")
    unbounded = [asyncio.create_task(semaphore.acquire(None)) for _ in range(10)]
    bounded = [asyncio.create_task(semaphore.acquire("b")) for _ in range(2)]
    await settle()
    with pytest.raises(TooManyWaiting):
        await semaphore.acquire("b")
    semaphore.release()
    semaphore.release()
    await settle()
    assert [task.done() for task in (unbounded[0], bounded[0])] == [True, True]  # they take turns
    for _ in range(10):
        semaphore.release()
        await settle()
    await asyncio.gather(*unbounded, *bounded)
