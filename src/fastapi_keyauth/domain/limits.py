"""Limits: how many units may be used in a window, and the arithmetic of windows in UTC."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastapi_keyauth.errors import InvalidField

REQUESTS = "requests"
MAX_LIMITS = 8
"""Limits of one holder: of a key or of an owner."""
MAX_UNITS = 1_000_000_000
"""Units of a limit, and of one cost."""
MAX_USED = 2_000_000_000
"""Units that a counter holds at most: debts beyond this are forgotten, so that every product stays below 2^53."""
MAX_WINDOW_S = 31_622_400
"""Seconds of the longest window: 366 days."""
STEP_MS = 10_000
"""Milliseconds by which a clock may step back across the end of a window without ending the window that began."""
_TICKS = 3_600_000
"""Ticks of a window at most; the ticks of an hour are milliseconds."""

Algorithm = Literal["fixed_window", "sliding_window"]
NAME_PATTERN = r"^[a-z0-9_-]{1,32}$"
_PER_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 0}
"""Seconds of the named windows; 0: a calendar month."""
_PER_SENTENCE = f"must be second, minute, hour, day, month, or a whole number of seconds from 1 to {MAX_WINDOW_S}"


def _check_per(value: Any) -> Any:
    is_name = isinstance(value, str) and value in _PER_S
    is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WINDOW_S
    if not is_name and not is_number:
        raise ValueError(_PER_SENTENCE)
    return value


def _check_number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise ValueError("must be a whole number")  # noqa: TRY004  # pydantic turns only a ValueError into a complaint
    return value


class Limit(BaseModel):
    """How many units may be used in a window. Added in 0.2.

    Attributes:
        name: 1 to 32 characters of ``a-z0-9_-``; unique within its key or owner. It appears in headers and bodies.
        limit: Units per window, 1 to 1,000,000,000.
        per: ``second``, ``minute``, ``hour``, ``day`` or ``month`` (calendar windows in UTC), or a whole number of
            seconds from 1 to 31,622,400 (windows counted from 1970-01-01T00:00Z).
        unit: ``requests``, or a name of the setting ``units``.
        algorithm: ``fixed_window`` or ``sliding_window``. None: the setting ``rate_limit_algorithm``. A month is always
            fixed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN, description="Unique within its key or owner.")
    limit: Annotated[int, BeforeValidator(_check_number)] = Field(ge=1, le=MAX_UNITS, description="Units per window.")
    per: Annotated[
        Literal["second", "minute", "hour", "day", "month"] | Annotated[int, Field(ge=1, le=MAX_WINDOW_S)],
        BeforeValidator(_check_per),
    ] = Field(description="A calendar window in UTC, or seconds counted from 1970.")
    unit: str = Field(REQUESTS, pattern=NAME_PATTERN, description="`requests`, or a unit that the service declares.")
    algorithm: Algorithm | None = Field(None, description="Omitted or null: the service's default.")

    @property
    def window_ms(self) -> int:
        """Milliseconds of the window; 0: a calendar month."""
        return (_PER_S[self.per] if isinstance(self.per, str) else self.per) * 1000

    @property
    def is_sliding(self) -> bool:
        """Whether the window before counts by the share of it that is still inside."""
        return self.algorithm == "sliding_window" and self.per != "month"

    @property
    def counter_id(self) -> str:
        """The name of its counter. The hour's counter has the name that it has always had."""
        if (self.name, self.per, self.unit) == ("hour", "hour", REQUESTS):
            return ""
        return f"{self.name}/{self.per}/{self.unit}/"

    def phrase(self) -> str:
        """Return what it allows, in words."""
        return f"{self.limit} {self.unit} per {self.per if isinstance(self.per, str) else f'{self.per} seconds'}"


def hour_limit(limit: int) -> Limit:
    """Return the limit that ``hourly_limit`` is short for."""
    return Limit(name="hour", limit=limit, per="hour")


def find_hourly(limits: Iterable[Limit]) -> int | None:
    """Return the number of the limit that ``hourly_limit`` is short for. None if there is no such limit."""
    return next((limit.limit for limit in limits if not limit.counter_id), None)


def check_unique(limits: list[Limit]) -> list[Limit]:
    """Check that each limit has a name of its own, and that there are not too many.

    Raises:
        ValueError: If two have the same name, or there are more than ``MAX_LIMITS``.
    """
    if len({limit.name for limit in limits}) < len(limits):
        raise ValueError("each limit must have a name of its own")
    if len(limits) > MAX_LIMITS:
        raise ValueError(f"there may be at most {MAX_LIMITS} limits")
    return limits


LimitList = Annotated[list[Limit], Field(max_length=MAX_LIMITS), AfterValidator(check_unique)]
"""The limits of one holder."""

Cost = tuple[tuple[str, int], ...]
"""Units that a request costs, sorted by unit."""
ONE_REQUEST: Cost = ((REQUESTS, 1),)
_UNIT = re.compile(NAME_PATTERN)


def parse_cost(cost: int | Mapping[str, int], units: Iterable[str]) -> Cost:
    """Return a cost in its sorted form.

    Args:
        cost: Units of ``requests``, or unit to number.
        units: The names that the setting ``units`` declares.

    Raises:
        ValueError: If a unit is not declared, or a number is not a whole number from 0 to 1,000,000,000.
    """
    numbers: Mapping[Any, Any] = {REQUESTS: cost} if isinstance(cost, int) else dict(cost)
    known = {REQUESTS, *units}
    for unit, number in numbers.items():
        if unit not in known:
            raise ValueError(f"unit {unit!r} is not declared; add it to the setting units")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_UNITS:
            raise ValueError(f"the cost in {unit} must be a whole number from 0 to {MAX_UNITS}")
    return tuple(sorted(numbers.items()))


def highest_cost(one: Cost, other: Cost) -> Cost:
    """Return the higher cost of each unit."""
    if one == other:
        return one
    numbers = dict(one)
    for unit, number in other:
        numbers[unit] = max(number, numbers.get(unit, 0))
    return tuple(sorted(numbers.items()))


class LimitState(NamedTuple):
    """A limit and what is left of it. Added in 0.2.

    Attributes:
        name: As in headers: an owner's limit starts with ``owner-``.
        limit: Units per window.
        per: The window; see ``Limit``.
        unit: What is counted.
        remaining: Units left, never below 0.
        reset_at: When the window ends (UTC).
    """

    name: str
    limit: int
    per: str | int
    unit: str
    remaining: int
    reset_at: datetime


class LimitSet:
    """The limits that one request must pass: those of its key, then those of its owner. Shared by all rows alike.

    Attributes:
        key: The key's limits, with their algorithms.
        owner: The owner's.
        all: Both, in this order.
        names: Their names as in headers.
        only: Whether there is one limit, of requests, and no other.
        one_hour: The number of the one limit, if it is the key's and of a fixed hour; otherwise "".
    """

    __slots__ = ("all", "key", "names", "one_hour", "only", "owner")

    def __init__(self, key: Sequence[Limit], owner: Sequence[Limit]) -> None:
        self.key = tuple(key)
        self.owner = tuple(owner)
        self.all = self.key + self.owner
        self.names = tuple([limit.name for limit in self.key] + [f"owner-{limit.name}" for limit in self.owner])
        self.only = len(self.all) == 1 and self.all[0].unit == REQUESTS
        is_one_hour = self.only and self.key and not self.all[0].counter_id and not self.all[0].is_sliding
        self.one_hour = str(self.all[0].limit) if is_one_hour else ""

    def costs(self, cost: Cost) -> tuple[int, ...]:
        """Return what a request costs of each limit."""
        numbers = dict(cost)
        return tuple(numbers.get(limit.unit, 0) for limit in self.all)

    def describe_exhausted(self, positions: Iterable[int]) -> str:
        """Return in words which limits have no room."""
        whose = {True: "its", False: "its owner's"}
        return " and ".join(
            f"{whose[position < len(self.key)]} limit of {self.all[position].phrase()}" for position in positions
        )

    def find_tightest(self, states: Sequence[int]) -> int | None:
        """Return the position of the limit of requests with the smallest share left. None if there is none.

        Args:
            states: As in ``Decision``: three numbers per limit.
        """
        if self.only:
            return 0
        shares = [
            (states[3 * position] / limit.limit, position)
            for position, limit in enumerate(self.all)
            if limit.unit == REQUESTS
        ]
        return min(shares)[1] if shares else None

    def describe(self, states: Sequence[int]) -> Iterator[LimitState]:
        """Yield each limit with what is left of it."""
        for position, (name, limit) in enumerate(zip(self.names, self.all, strict=True)):
            remaining, _, reset_at_s = states[3 * position : 3 * position + 3]
            yield LimitState(
                name, limit.limit, limit.per, limit.unit, remaining, datetime.fromtimestamp(reset_at_s, UTC)
            )


@lru_cache(maxsize=4096)
def limit_set(key: tuple[Limit, ...], owner: tuple[Limit, ...]) -> LimitSet:
    """Return one object for the same limits: most keys have the same."""
    return LimitSet(key, owner)


NO_LIMITS = LimitSet((), ())


class LimitRules:
    """The limits in force, from those that are stored and the defaults of the settings.

    Args:
        hourly: The setting ``default_hourly_limit``.
        limits: The setting ``default_limits``.
        owner_limits: The setting ``default_owner_limits``.
        algorithm: The setting ``rate_limit_algorithm``.
    """

    def __init__(
        self, hourly: int | None, limits: Sequence[Limit], owner_limits: Sequence[Limit], algorithm: Algorithm
    ) -> None:
        self._algorithm: Algorithm = algorithm
        self.defaults = self._resolve(_with_hourly(hourly, limits))
        self._owner_defaults = self._resolve(owner_limits)

    def of_key(self, hourly_limit: int | None, limits: Sequence[Mapping[str, Any] | Limit] | None) -> tuple[Limit, ...]:
        """Return the limits of a key from its columns or fields: exactly what it was given, or the defaults."""
        if hourly_limit is None and limits is None:
            return self.defaults
        return self._resolve(_with_hourly(hourly_limit, map(Limit.model_validate, limits or ())))

    def of_owner(self, limits: Sequence[Mapping[str, Any]] | None) -> tuple[Limit, ...]:
        """Return the limits of an owner from its column: those that it was given, or the defaults."""
        return self._owner_defaults if limits is None else self._resolve(map(Limit.model_validate, limits))

    def _resolve(self, limits: Iterable[Limit]) -> tuple[Limit, ...]:
        return tuple(
            limit.model_copy(update={"algorithm": "fixed_window" if limit.per == "month" else self._algorithm})
            if limit.algorithm is None or limit.per == "month"
            else limit
            for limit in limits
        )


def _with_hourly(hourly_limit: int | None, limits: Iterable[Limit]) -> list[Limit]:
    return [*([] if hourly_limit is None else [hour_limit(hourly_limit)]), *limits]


NO_RULES = LimitRules(None, (), (), "fixed_window")
"""No defaults."""


def as_json(limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """Return limits as they are stored: what was left out stays open, so that a new default applies."""
    return [limit.model_dump(exclude_none=True) for limit in limits]


def check_units(limits: Iterable[Limit], units: Iterable[str], field: str = "limits") -> None:
    """Check that the units of limits are declared.

    Raises:
        InvalidField: If one is not.
    """
    known = [REQUESTS, *units]
    if any(limit.unit not in known for limit in limits):
        raise InvalidField(field, f"unit must be one of: {', '.join(known)}")


def check_with_hourly(hourly_limit: int | None, limits: Sequence[Limit] | None) -> None:
    """Check that a list of limits goes with ``hourly_limit``.

    Raises:
        ValueError: If both name the limit ``hour``, or there are too many.
    """
    if hourly_limit is not None and limits is not None:
        check_unique(_with_hourly(hourly_limit, limits))


class Window(NamedTuple):
    """A window: its number, its length, and its end in milliseconds since 1970."""

    number: int
    length_ms: int
    end_ms: int


def window_at(window_ms: int, now_ms: int) -> Window:
    """Return the window that a moment lies in.

    Args:
        window_ms: Its length; 0: a calendar month.
        now_ms: Milliseconds since 1970.
    """
    if window_ms:
        return window_of(window_ms, now_ms // window_ms)
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return month(moment.year * 12 + moment.month - 1)


def window_of(window_ms: int, number: int) -> Window:
    """Return the window with this number."""
    return Window(number, window_ms, (number + 1) * window_ms) if window_ms else month(number)


@lru_cache(maxsize=64)
def month(number: int) -> Window:
    """Return a calendar month. Its number is twelve times the year, plus 0 to 11."""
    start, end = (int(datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000 for n in (number, number + 1))
    return Window(number, end - start, end)


def ticks_of(window_ms: int) -> tuple[int, int]:
    """Return the milliseconds of a tick and the ticks of a sliding window.

    Few enough that a product of units and ticks stays below 2^53, which is what Lua counts exactly.
    """
    tick_ms = max(1, -(-window_ms // _TICKS))
    return tick_ms, -(-window_ms // tick_ms)
