"""Bounds on the limits that a caller may give to keys: the default limits, and the limits of a calling key."""

from collections.abc import Collection
from dataclasses import dataclass

from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.domain.limits import MAX_LIMITS, Limit, LimitRules
from fastapi_keyauth.domain.principals import ADMIN
from fastapi_keyauth.errors import InsufficientScope

_DAY_MS = 86_400_000
_SHORTEST_MONTH_MS, _LONGEST_MONTH_MS = 28 * _DAY_MS, 31 * _DAY_MS


@dataclass(frozen=True, slots=True)
class LimitBounds:
    """Bounds on the limits that one caller may give to keys.

    Attributes:
        is_admin: Whether the caller holds ``admin``, so that nothing bounds it.
        default_limit: The setting ``default_hourly_limit``.
        rules: Rules that turn the stored limits of a key into its effective limits.
        own_limit: Hourly limit of the calling key. None if it has no limit, or if the caller is a session.
        own_limits: Limits of the calling key. Empty if it has no limits, or if the caller is a session.
    """

    is_admin: bool
    default_limit: int | None
    rules: LimitRules
    own_limit: int | None
    own_limits: tuple[Limit, ...]

    def check_hourly(self, limit: int | None) -> None:
        """Check an hourly limit. One above the default, or above the calling key's own, requires ``admin``.

        Args:
            limit: Requests per hour. None: the default.

        Raises:
            InsufficientScope: Naming ``admin``.
        """
        if self.is_admin:
            return
        chosen = self.default_limit if limit is None else limit
        if _is_above(chosen, self.default_limit) or _is_above(chosen, self.own_limit):
            most = min(bound for bound in (self.default_limit, self.own_limit) if bound is not None)
            raise InsufficientScope([ADMIN], reason=f"Your keys may have an hourly_limit of {most} at most")

    def check(self, limits: Collection[Limit]) -> None:
        """Check the limits in force of a key: each default limit, and each of the calling key's own, bounds it.

        Raises:
            InsufficientScope: Naming ``admin``.
        """
        if self.is_admin:
            return
        for bound in (*self.rules.defaults, *self.own_limits):
            if not any(_is_within(limit, bound) for limit in limits):
                raise InsufficientScope([ADMIN], reason=f"Your keys need a limit of at most {bound.phrase()}")

    def check_existing(self, key: Key) -> None:
        """Check that the limits of an existing key are within those of the calling key.

        Raises:
            InsufficientScope: Naming ``admin``.
        """
        if self.is_admin:
            return
        if _is_above(key.hourly_limit, self.own_limit):
            raise InsufficientScope([ADMIN], reason="The key's hourly_limit is above yours")
        for bound in self.own_limits:
            if not any(_is_within(limit, bound) for limit in key.limits):
                raise InsufficientScope([ADMIN], reason="The key's limits are above yours")

    def default_limits(self) -> list[Limit] | None:
        """Return the limits to store for a new key without limits. None: store that of ``default_hourly``."""
        own = self.own_limits
        if self.is_admin or not own or all(map(self._is_of_hourly_limit, (*own, *self.rules.defaults))):
            return None
        open_defaults = [bound for bound in self.rules.defaults if not any(_is_within(limit, bound) for limit in own)]
        names = {limit.name for limit in own}
        return [*own, *(bound for bound in open_defaults if bound.name not in names)][:MAX_LIMITS]

    def default_hourly(self) -> int | None:
        """Return the hourly limit to store for a new key without one: the caller's if below the default, else None."""
        return self.own_limit if not self.is_admin and _is_above(self.default_limit, self.own_limit) else None

    def _is_of_hourly_limit(self, limit: Limit) -> bool:
        """Return whether ``hourly_limit`` alone would result in this limit, including the algorithm."""
        return self.rules.of_key(limit.limit, None) == (limit,)


def _is_above(limit: int | None, bound: int | None) -> bool:
    """Return whether one limit allows more than another. None means unlimited."""
    if bound is None:
        return False
    return limit is None or limit > bound


def _is_within(limit: Limit, bound: Limit) -> bool:
    """Return whether a limit never allows more than another one, whatever their windows are."""
    return limit.unit == bound.unit and limit.limit * _most_windows(limit, bound) <= bound.limit


def _most_windows(limit: Limit, bound: Limit) -> int:
    """Return how many windows of a limit can share one window of a bound. All of them can be used up in it."""
    length_ms, bound_ms = limit.window_ms or _SHORTEST_MONTH_MS, bound.window_ms or _LONGEST_MONTH_MS
    if bound.is_sliding and limit.is_sliding and length_ms == bound_ms:
        return 1
    if bound.is_sliding or not _is_nested(limit, bound):
        return -(-bound_ms // length_ms) + 1  # a window of the limit may end, and another one begin, in the middle
    return max(1, bound_ms // length_ms)


def _is_nested(one: Limit, other: Limit) -> bool:
    """Return whether each window of the shorter of two fixed limits lies in one window of the longer."""
    shorter_ms, longer_ms = sorted((one.window_ms or _DAY_MS, other.window_ms or _DAY_MS))  # a month begins with a day
    has_month = not (one.window_ms and other.window_ms)
    return longer_ms % shorter_ms == 0 and (not has_month or longer_ms == _DAY_MS)
