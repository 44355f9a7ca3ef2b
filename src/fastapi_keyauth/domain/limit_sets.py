"""What a request costs, and the limits that it must pass: those of its key and those of its owner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi_keyauth.domain.units import MAX_UNITS, NAME_PATTERN, REQUESTS
from fastapi_keyauth.domain.windows import Algorithm

if TYPE_CHECKING:  # Pydantic takes long to import, and the command line's help needs none of it
    from fastapi_keyauth.domain.limits import Limit

MAX_USED = 2_000_000_000
"""Maximum number of units in a counter. Debts beyond it are forgotten, so that every product stays below 2^53."""
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
        algorithm: ``fixed_window`` or ``sliding_window``.
    """

    name: str
    limit: int
    per: str | int
    unit: str
    remaining: int
    reset_at: datetime
    algorithm: Algorithm


class LimitSet:
    """The limits that a request must pass: those of its key, then those of its owner. Shared by rows with equal limits.

    Attributes:
        key: The key's limits, with their algorithms.
        owner: The owner's.
        all: Both, in this order.
        names: Their names as in headers.
        only: Whether there is one limit, of requests, and no other.
        hourly: The number of the one limit, if it is the key's and of a fixed hour; otherwise 0.
        one_hour: The same as text; otherwise "".
    """

    __slots__ = ("_of_requests", "all", "hourly", "key", "names", "one_hour", "only", "owner")

    def __init__(self, key: Sequence[Limit], owner: Sequence[Limit]) -> None:
        self.key = tuple(key)
        self.owner = tuple(owner)
        self.all = self.key + self.owner
        self.names = tuple([limit.name for limit in self.key] + [f"owner-{limit.name}" for limit in self.owner])
        self._of_requests = tuple(
            (position, 3 * position, limit.limit) for position, limit in enumerate(self.all) if limit.unit == REQUESTS
        )
        self.only = len(self.all) == 1 and self.all[0].unit == REQUESTS
        is_one_hour = self.only and self.key and not self.all[0].counter_id and not self.all[0].is_sliding
        self.hourly = self.all[0].limit if is_one_hour else 0
        self.one_hour = str(self.hourly or "")

    def costs(self, cost: Cost) -> tuple[int, ...]:
        """Return what a request costs of each limit."""
        numbers = dict(cost)
        return tuple(numbers.get(limit.unit, 0) for limit in self.all)

    def describe_exhausted(self, positions: Iterable[int], states: Sequence[int]) -> str:
        """Return in words which limits have no room.

        Args:
            positions: Their positions.
            states: As in ``Decision``: three numbers per limit.
        """
        clauses = []
        for position in positions:
            whose, left = "its" if position < len(self.key) else "its owner's", states[3 * position]
            room = f"has only {left} left" if left else "is used up"
            clauses.append(f"{whose} limit of {self.all[position].phrase()} {room}")
        return " and ".join(clauses)

    def find_tightest(self, states: Sequence[int]) -> int | None:
        """Return the position of the limit of requests with the smallest share left. None if there is none.

        Args:
            states: As in ``Decision``: three numbers per limit.
        """
        tightest, lowest = None, 2.0
        for position, at, limit in self._of_requests:
            share = states[at] / limit
            if share < lowest:
                tightest, lowest = position, share
        return tightest

    def describe(self, states: Sequence[int]) -> Iterator[LimitState]:
        """Yield each limit with what is left of it."""
        for position, (name, limit) in enumerate(zip(self.names, self.all, strict=True)):
            remaining, _, reset_at_s = states[3 * position : 3 * position + 3]
            reset_at = datetime.fromtimestamp(reset_at_s, UTC)
            algorithm: Algorithm = "sliding_window" if limit.is_sliding else "fixed_window"
            yield LimitState(name, limit.limit, limit.per, limit.unit, remaining, reset_at, algorithm)


@lru_cache(maxsize=4096)
def limit_set(key: tuple[Limit, ...], owner: tuple[Limit, ...]) -> LimitSet:
    """Return one shared object for equal limits, since most keys have the same ones."""
    return LimitSet(key, owner)


NO_LIMITS = LimitSet((), ())
