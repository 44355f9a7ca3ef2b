"""Usage: what was admitted and refused, by key, unit, hour and day (UTC)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

from fastapi_keyauth.domain.units import HOUR_S, REQUESTS
from fastapi_keyauth.errors import InvalidField

By = Literal["day", "month", "key", "unit"]
"""Grouping of the items of a report."""
GROUPS: tuple[By, ...] = ("day", "month", "key", "unit")
HOURS_OF_DAY = 24
MAX_REPORT_DAYS = 3660
"""Maximum number of days in one report: ten years."""
MAX_BATCH_ITEMS = 1000
"""Maximum number of items in one batch of closed days."""
_EPOCH = date(1970, 1, 1)


class UsageOf(NamedTuple):
    """What to read from a limiter that counts usage.

    Attributes:
        key_id: The key.
        owner_id: Its owner.
        hour: Hours since 1970. None: all hours that are counted.
    """

    key_id: str
    owner_id: str
    hour: int | None = None


class UsageCount(NamedTuple):
    """Units that a limiter has counted so far. The number only grows.

    Attributes:
        key_id: The key.
        hour: Hours since 1970.
        unit: The unit.
        source: The memory in which it was counted. One that was lost and began again at 0 has another name.
        units: The number of units.
    """

    key_id: str
    hour: int
    unit: str
    source: str
    units: int


@dataclass(frozen=True, slots=True)
class UsageItem:
    """A line of a report. Added in 0.2.

    Attributes:
        units: Unit to the number of admitted units.
        refused: Refused requests with a correct secret.
        closed: Whether the numbers are final.
        day: The day (UTC), in a report by day.
        month: The month as ``2026-11``, in a report by month.
        key_id: The key, in a report by key.
        unit: The unit, in a report by unit.
    """

    units: Mapping[str, int]
    refused: int
    closed: bool
    day: date | None = None
    month: str | None = None
    key_id: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage in a range of days; iterates over its items. Added in 0.2.

    Attributes:
        items: Days or months in their order, keys or units by name.
    """

    items: list[UsageItem]

    def __iter__(self) -> Iterator[UsageItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class UsageBatchItem:
    """The units of a key on a closed day. Added in 0.2.

    Attributes:
        id: A number that never changes and grows from item to item.
        day: The day (UTC).
        owner_id: The owner of the key. After ``owners.erase`` a name that names nobody.
        key_id: The key.
        unit: The unit.
        units: The number of admitted units.
    """

    id: int
    day: date
    owner_id: str
    key_id: str
    unit: str
    units: int


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Some closed days; iterates over its items. Added in 0.2.

    Attributes:
        items: Keys on closed days, by their ids.
        next_after: What to ask for next: the id of the last item. None if there are no items.
    """

    items: list[UsageBatchItem]
    next_after: int | None

    def __iter__(self) -> Iterator[UsageBatchItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class DayRange:
    """Days since 1970: ``first`` is included, ``end`` is not."""

    first: int
    end: int

    @classmethod
    def of(cls, from_: date, to: date) -> "DayRange":
        """Return a range of dates.

        Args:
            from_: The first day.
            to: The day after the last one.

        Raises:
            InvalidField: If it is empty or reversed, begins before 1970, or is longer than ``MAX_REPORT_DAYS``.
        """
        if from_ < _EPOCH:
            raise InvalidField("from", "must not be before 1970-01-01")
        if to <= from_:
            raise InvalidField("to", "must be after from: the day after the last one")
        if (to - from_).days > MAX_REPORT_DAYS:
            raise InvalidField("to", f"must be at most {MAX_REPORT_DAYS} days after from")
        return cls(day_number(from_), day_number(to))


@dataclass(slots=True)
class UsageSum:
    """Sums of one item of a report."""

    units: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    def add(self, unit: str, units: int, refused: int) -> None:
        """Add units and refused requests."""
        self.units[unit] = self.units.get(unit, 0) + units
        self.refused += refused

    def complete(self) -> dict[str, int]:
        """Return the units, with requests first, also if there were none."""
        requests = self.units.pop(REQUESTS, 0)
        return {REQUESTS: requests, **dict(sorted(self.units.items()))}


def day_number(day: date) -> int:
    """Return the number of days since 1970."""
    return (day - _EPOCH).days


def date_of(number: int) -> date:
    """Return the day with this number."""
    return _EPOCH + timedelta(days=number)


def month_of(day: date) -> str:
    """Return the name of a day's month, such as ``2026-11``."""
    return f"{day.year:04}-{day.month:02}"


def end_of_month(day: date) -> date:
    """Return the first day of the next month, or the last possible date."""
    if (day.year, day.month) == (date.max.year, date.max.month):
        return date.max
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def hour_of(at: datetime) -> int:
    """Return the number of hours since 1970."""
    return int(at.timestamp()) // HOUR_S


def start_of_hour(hour: int) -> datetime:
    """Return when an hour starts, in UTC."""
    return datetime.fromtimestamp(hour * HOUR_S, UTC)
