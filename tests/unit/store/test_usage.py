"""Usage in the database: writes that are repeated, closed days that never change, and what arrives late."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.domain.usage import HOURS_OF_DAY, UsageCount, date_of, hour_of
from fastapi_keyauth.store import Usage, UsageDayStore, UsageStore
from fastapi_keyauth.store.tables import UsageRow, table
from fastapi_keyauth.store.usage_days import days

NOON = datetime(2026, 11, 3, 12, 30, tzinfo=UTC)
HOUR = hour_of(NOON)
DAY = HOUR // HOURS_OF_DAY
NEXT_DAY = NOON + timedelta(days=1)


class Ledger:
    """A database with one key, and short ways to its usage."""

    def __init__(self, auth: KeyAuth, key_id: str) -> None:
        self.auth = auth
        self.database = auth._parts.database
        self.key_id = key_id
        self.hours = UsageStore(self.database, "ka", 192)
        self.days = UsageDayStore(self.database, "ka")
        self._batches = 0

    async def add(
        self, units: int = 0, refused: int = 0, hour: int = HOUR, now: datetime = NOON, unit: str = "requests"
    ) -> None:
        self._batches += 1
        usage = Usage(units={(self.key_id, hour, unit): units}, refused={(self.key_id, hour): refused})
        await self.hours.write(usage, [], "worker", self._batches, now)

    async def count(self, units: int, hour: int = HOUR, now: datetime = NOON, source: str = "redis-1") -> None:
        await self.hours.set_counts([UsageCount(self.key_id, hour, "requests", source, units)], now)

    async def close(self, *which: int) -> None:
        for day in which:
            assert await self.days.close_day(day)

    async def of_hour(self, hour: int = HOUR) -> tuple[int, int]:
        found = (await self.hours.of_key(self.key_id, hour, hour)).get(hour)
        return (0, 0) if found is None else (found.units.get("requests", 0), found.refused)

    async def of_day(self, day: int) -> dict[str, int]:
        async with self.database.read() as connection:
            rows = await connection.execute(select(days.c.unit, days.c.units).where(days.c.day == day))
            return {row.unit: row.units for row in rows}


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    settings = KeyAuthSettings(
        _env_file=None, database_url=database_url, argon2_time_cost=1, argon2_memory_kib=8, units=["tokens"]
    )
    async with KeyAuth(settings, clock=NOON.timestamp).connect() as auth:
        yield Ledger(auth, (await auth.keys.create(owner_id="ada", name="k")).key.id)


async def test_a_count_may_be_written_again_and_by_several_workers(ledger: Ledger) -> None:
    for units in (3, 7, 7, 5):  # the last one comes from a slow worker
        await ledger.count(units)
    await asyncio.gather(*(ledger.count(units) for units in (8, 12, 10)))
    assert await ledger.of_hour() == (12, 0)


async def test_a_memory_that_began_again_adds_to_the_one_before(ledger: Ledger) -> None:
    await ledger.count(7, source="redis-1")
    await ledger.count(2, source="redis-2")
    await ledger.add(units=1, refused=4)
    assert await ledger.of_hour() == (10, 4)


async def test_a_closed_day_is_what_its_hours_were(ledger: Ledger) -> None:
    await ledger.count(7)
    await ledger.add(units=2, hour=HOUR - 1)
    await ledger.add(units=40, hour=HOUR - 1, unit="tokens")
    await ledger.add(units=100, hour=HOUR + HOURS_OF_DAY)
    await ledger.close(DAY)
    assert await ledger.of_day(DAY) == {"requests": 9, "tokens": 40}
    assert await ledger.of_day(DAY + 1) == {}


async def test_two_workers_close_a_day_once(ledger: Ledger) -> None:
    await ledger.count(7)
    assert sorted(await asyncio.gather(*(ledger.days.close_day(DAY) for _ in range(4)))) == [False, False, False, True]
    assert await ledger.of_day(DAY) == {"requests": 7}


async def test_units_that_arrive_late_count_on_the_current_day(ledger: Ledger) -> None:
    await ledger.count(7)
    await ledger.close(DAY)
    for units in (7, 9, 9, 8, 10):
        await ledger.count(units, now=NEXT_DAY)
    await ledger.count(2, now=NEXT_DAY, source="redis-2")
    await ledger.add(units=5, refused=1, now=NEXT_DAY)
    assert await ledger.of_day(DAY) == {"requests": 7}
    assert await ledger.of_hour() == (17, 1)  # when it was used
    assert await ledger.of_hour(hour_of(NEXT_DAY)) == (0, 0)
    report = await ledger.auth.usage.report(date_of(DAY), date_of(DAY + 2))
    assert [(item.units["requests"], item.refused, item.closed) for item in report] == [(7, 0, True), (10, 1, False)]
    await ledger.close(DAY + 1)
    assert await ledger.of_day(DAY + 1) == {"requests": 10}


@pytest.mark.parametrize("numbers", [(9, 9), (8, 9), (9, 8)])
async def test_a_late_count_that_was_read_twice_is_added_once(ledger: Ledger, numbers: tuple[int, int]) -> None:
    await ledger.count(7)
    await ledger.close(DAY)
    counts = [UsageCount(ledger.key_id, HOUR, "requests", "redis-1", units) for units in numbers]
    await ledger.hours.set_counts(counts, NEXT_DAY)
    assert await ledger.of_hour() == (9, 0)
    await ledger.close(DAY + 1)
    assert await ledger.of_day(DAY + 1) == {"requests": 2}


async def test_a_count_of_an_hour_that_is_not_kept_any_more_is_not_added_again(ledger: Ledger) -> None:
    await ledger.count(7)
    await ledger.close(DAY)
    await ledger.count(7, now=NOON + timedelta(hours=192))
    await ledger.close(*range(DAY + 1, DAY + 10))
    assert await ledger.of_day(DAY + 8) == {}


async def test_usage_and_a_closing_that_happen_together_lose_nothing(ledger: Ledger) -> None:
    await ledger.add()

    async def add() -> None:
        for _ in range(5):
            await ledger.add(units=1, now=NEXT_DAY)

    await asyncio.gather(add(), ledger.days.close_day(DAY))
    await ledger.days.close_day(DAY + 1)
    on_both = [await ledger.of_day(day) for day in (DAY, DAY + 1)]
    assert sum(units.get("requests", 0) for units in on_both) == 5


async def test_what_workers_of_the_version_before_add_is_carried_over(ledger: Ledger) -> None:
    async with ledger.database.write() as connection:
        row = {"key_id": ledger.key_id, "hour": HOUR, "admitted": 3, "refused": 1}
        await connection.execute(insert(table(UsageRow)).values(row))
    await ledger.count(4)
    await ledger.close(DAY)
    assert await ledger.of_day(DAY) == {"requests": 7}
    assert await ledger.of_hour() == (7, 1)


async def test_products_close_their_days_apart(ledger: Ledger) -> None:
    await ledger.count(7)
    other = UsageDayStore(ledger.database, "other")
    await UsageStore(ledger.database, "other", 192).set_counts([UsageCount("none", HOUR, "requests", "r", 1)], NOON)
    assert await other.close_day(DAY)
    assert await ledger.of_day(DAY) == {}
    await ledger.close(DAY)
    assert await ledger.of_day(DAY) == {"requests": 7}
    assert len(await other.find_batch(0, 10)) == 0


async def test_batches_are_handed_out_in_the_order_of_ids_that_stay(ledger: Ledger) -> None:
    for number in range(3):
        await ledger.add(units=number + 1, hour=HOUR + number * HOURS_OF_DAY)
    await ledger.add(refused=5)
    await ledger.close(DAY, DAY + 1)
    first = await ledger.days.find_batch(0, 1)
    second = await ledger.days.find_batch(first.next_after or 0, 10)
    assert [(item.day, item.units) for item in (*first, *second)] == [(date_of(DAY), 1), (date_of(DAY + 1), 2)]
    assert (await ledger.days.find_batch(second.next_after or 0, 10)).next_after is None
    await ledger.days.close_day(DAY + 2)
    assert (await ledger.days.find_batch(0, 10)).items[:2] == [*first, *second]


async def test_a_lease_is_taken_over_when_it_ends(ledger: Ledger) -> None:
    await ledger.add()
    until = NOON + timedelta(seconds=30)
    assert await ledger.days.lease(DAY, NOON, until)
    assert not await ledger.days.lease(DAY, NOON, until + timedelta(seconds=1))
    later = until + timedelta(seconds=20)
    assert await ledger.days.lease(DAY, until - timedelta(seconds=10), later, held_until=until)
    assert await ledger.days.lease(DAY, later, later + timedelta(seconds=30))
    assert not await ledger.days.lease(DAY + 1, NEXT_DAY, NEXT_DAY + timedelta(seconds=30))
