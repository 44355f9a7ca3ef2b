"""``auth.usage``: reports of usage, and closed days for a billing system."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, date, datetime, timedelta

from fastapi_keyauth.domain.pagination import check_key_id
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.usage import (
    GROUPS,
    MAX_BATCH_ITEMS,
    By,
    DayRange,
    UsageBatch,
    UsageItem,
    UsageReport,
    UsageSum,
    date_of,
    day_number,
    end_of_month,
    month_of,
)
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.store import KeyStore, UsageDayStore, UsageReportStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder
from fastapi_keyauth.store.usage_days import OpenDays

KEYS_PER_READ = 200
"""Keys whose usage is summed up in one statement."""
MAX_AFTER = 2**63 - 1
"""Maximum id of an item: the largest BIGINT."""
Day = date | str
"""A date, or a text such as ``2026-11-01``."""
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UsageReports:
    """``auth.usage``: reports and closed days. Added in 0.2.

    Every method may raise ``StoreUnavailable``.

    Args:
        reports: Sums up usage.
        days: Store of closed days.
        keys: Store of the keys.
        recorder: Writes the usage that is not stored yet.
        turns: Orders reads that share connections with changes.
        units: The setting ``units``.
        now: The time, UTC.
    """

    def __init__(
        self,
        reports: UsageReportStore,
        days: UsageDayStore,
        keys: KeyStore,
        recorder: UsageRecorder,
        turns: Turns,
        units: tuple[str, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._reports = reports
        self._days = days
        self._keys = keys
        self._recorder = recorder
        self._turns = turns
        self._units = units
        self._now = now

    async def report(
        self,
        from_: Day | None = None,
        to: Day | None = None,
        by: By = "day",
        owner_id: str | None = None,
        key_id: str | None = None,
    ) -> UsageReport:
        """Return the usage in a range of days (UTC): of all keys, of an owner's keys, or of one key.

        Reports by day and month have an item for each day or month from the first counted usage until today, even
        without usage. Reports by key and unit only have items with usage.

        An item is closed if its numbers are final: a day once it is closed, a month once all its days are, a key or a
        unit once all days of the range are.

        Args:
            from_: The first day. Default: the first of this month.
            to: The day after the last one. Default: tomorrow.
            by: ``day``, ``month``, ``key`` or ``unit``.
            owner_id: Only keys of this owner.
            key_id: Only this key.

        Raises:
            InvalidField: If the range is empty or reversed or longer than ten years, or ``by`` is unknown.
            KeyNotFound: If the key does not exist, or is not the owner's.
        """
        range_ = self.find_range(from_, to)
        owner_ids = None if owner_id is None else [owner_id]
        return UsageReport([item async for item in self.stream(range_, check_by(by), owner_ids, key_id)])

    def find_range(self, from_: Day | None, to: Day | None) -> DayRange:
        """Return the range of days from one date to another.

        Args:
            from_: The first day. None: the first of this month.
            to: The day after the last one. None: tomorrow.

        Raises:
            InvalidField: If it is empty or reversed or longer than ten years, or a date is not a date.
        """
        today = self._now().date()
        first = today.replace(day=1) if from_ is None else read_day(from_, "from")
        return DayRange.of(first, today + timedelta(days=1) if to is None else read_day(to, "to"))

    async def find_units(
        self,
        range_: DayRange,
        owner_ids: Collection[str] | None = None,
        key_id: str | None = None,
        turn: str | None = None,
    ) -> list[str]:
        """Return the units that a report may have: requests, the declared units, then others in alphabetical order."""
        found = [item.unit async for item in self.stream(range_, "unit", owner_ids, key_id, turn)]
        others = sorted(unit for unit in found if unit is not None)
        return list(dict.fromkeys([REQUESTS, *self._units, *others]))

    async def batches(self, after: int = 0, limit: int = MAX_BATCH_ITEMS, turn: str | None = None) -> UsageBatch:
        """Return the next items of closed days, in the order of their ids, for exports that must not count twice.

        Args:
            after: The last id that was exported, or 0.
            limit: 1 to 1000.
            turn: On whose behalf. None: of the application.

        Raises:
            InvalidField: If a number is out of bounds.
        """
        if not 0 <= after <= MAX_AFTER:
            raise InvalidField("after", "must be the id of an item, or 0")
        if not 1 <= limit <= MAX_BATCH_ITEMS:
            raise InvalidField("limit", f"must be from 1 to {MAX_BATCH_ITEMS}")
        async with self._turns.place(turn):
            return await self._days.find_batch(after, limit)

    async def stream(
        self,
        range_: DayRange,
        by: By,
        owner_ids: Collection[str] | None = None,
        key_id: str | None = None,
        turn: str | None = None,
    ) -> AsyncIterator[UsageItem]:
        """Yield the items of a report; see ``report``. No connection is held between two of them.

        Args:
            range_: The days.
            by: What the items are.
            owner_ids: Only keys of these owners. None: of all.
            key_id: Only this key.
            turn: On whose behalf. None: of the application.
        """
        if key_id is not None:
            async with self._turns.place(turn):
                await self._keys.get(check_key_id(key_id), self._now(), owner_ids)
        await self._recorder.flush_soon()
        async with self._turns.place(turn):
            found = await self._days.find_open()
        today = day_number(self._now().date())
        open_days = OpenDays(today, 0) if found is None else found
        items = _Items(self._reports, self._turns, range_, open_days, today, turn)
        read = {"day": items.by_day, "month": items.by_month, "key": items.by_key, "unit": items.by_unit}
        async for item in read[by](owner_ids, None if key_id is None else [key_id]):
            yield item


class _Items:
    """The items of one report, read in short statements, each with its own turn."""

    def __init__(
        self,
        store: UsageReportStore,
        turns: Turns,
        range_: DayRange,
        open_days: OpenDays,
        today: int,
        turn: str | None,
    ) -> None:
        self._store = store
        self._turns = turns
        self._range = range_
        self._since, self._open_day = open_days
        self._today = today
        self._turn = turn

    async def by_day(self, owner_ids: Collection[str] | None, key_ids: list[str] | None) -> AsyncIterator[UsageItem]:
        for month in self._months():
            sums: dict[int, UsageSum] = {}
            async with self._turns.place(self._turn):
                rows = await self._store.sum_up("day", month, self._open_day, owner_ids, key_ids)
            for day, unit, units, refused in rows:
                sums.setdefault(day, UsageSum()).add(unit, units, refused)
            for day in range(month.first, month.end):
                if day in sums or self._since <= day <= self._today:
                    found = sums.get(day, UsageSum())
                    yield UsageItem(found.complete(), found.refused, day < self._open_day, day=date_of(day))

    async def by_month(self, owner_ids: Collection[str] | None, key_ids: list[str] | None) -> AsyncIterator[UsageItem]:
        for month in self._months():
            found = await self._sum_up_units(month, owner_ids, key_ids)
            if found.units or (self._since < month.end and month.first <= self._today):
                first = date_of(month.first)
                closed = day_number(end_of_month(first)) <= self._open_day
                yield UsageItem(found.complete(), found.refused, closed, month=month_of(first))

    async def by_unit(self, owner_ids: Collection[str] | None, key_ids: list[str] | None) -> AsyncIterator[UsageItem]:
        sums: dict[str, UsageSum] = {}
        for month in self._months():
            async with self._turns.place(self._turn):
                rows = await self._store.sum_up("unit", month, self._open_day, owner_ids, key_ids)
            for unit, _, units, refused in rows:
                sums.setdefault(unit, UsageSum()).add(unit, units, refused)
        for unit, found in sorted(sums.items()):
            yield UsageItem(found.units, found.refused, self._range.end <= self._open_day, unit=unit)

    async def by_key(self, owner_ids: Collection[str] | None, key_ids: list[str] | None) -> AsyncIterator[UsageItem]:
        after = ""
        while True:
            async with self._turns.place(self._turn):
                page = key_ids or list(await self._store.find_keys(after, KEYS_PER_READ, owner_ids))
                rows = await self._store.sum_up("key_id", self._range, self._open_day, None, page) if page else []
            sums: dict[str, UsageSum] = {}
            for key_id, unit, units, refused in rows:
                sums.setdefault(key_id, UsageSum()).add(unit, units, refused)
            for key_id, found in sums.items():
                yield UsageItem(found.complete(), found.refused, self._range.end <= self._open_day, key_id=key_id)
            if key_ids is not None or len(page) < KEYS_PER_READ:
                return
            after = page[-1]

    async def _sum_up_units(
        self, month: DayRange, owner_ids: Collection[str] | None, key_ids: list[str] | None
    ) -> UsageSum:
        found = UsageSum()
        async with self._turns.place(self._turn):
            rows = await self._store.sum_up("unit", month, self._open_day, owner_ids, key_ids)
        for _, unit, units, refused in rows:
            found.add(unit, units, refused)
        return found

    def _months(self) -> Iterator[DayRange]:
        """Yield the range in parts of at most one calendar month."""
        first = self._range.first
        while first < self._range.end:
            end = min(self._range.end, day_number(end_of_month(date_of(first))))
            yield DayRange(first, end)
            first = end


def read_day(value: object, field: str) -> date:
    """Return a date.

    Args:
        value: A date, an aware datetime, or a text such as ``2026-11-01``.
        field: The name of the field.

    Raises:
        InvalidField: If it is something else.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).date()
    if isinstance(value, date):
        return value
    if isinstance(value, str) and _DAY.fullmatch(value):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(value)
    raise InvalidField(field, "must be a date such as 2026-11-01")


def check_by(by: By) -> By:
    """Return the grouping of a report if it is valid.

    Raises:
        InvalidField: If it is not one of ``GROUPS``.
    """
    if by not in GROUPS:
        raise InvalidField("by", f"must be one of {', '.join(GROUPS)}")
    return by
