"""Limits: how many units may be used in a window, and which are in force."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastapi_keyauth.domain.units import MAX_UNITS, NAME_PATTERN, REQUESTS
from fastapi_keyauth.domain.windows import MAX_WINDOW_S, Algorithm
from fastapi_keyauth.errors import InvalidField

MAX_LIMITS = 8
"""Limits of one holder: of a key or of an owner."""
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
        raise ValueError("must be a whole number")  # noqa: TRY004  # pydantic turns only a ValueError into a validation error
    return value


def drop_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults from the schema of a body: generated clients would send or require what may be omitted."""
    for field in schema["properties"].values():
        field.pop("default", None)


def _describe_limit(schema: dict[str, Any]) -> None:
    drop_defaults(schema)
    schema["description"] = "How many units may be used in a window."
    schema["example"] = {"name": "day", "limit": 50_000, "per": "day"}


class Limit(BaseModel):
    """A number of units that may be used in a window. Added in 0.2.

    Attributes:
        name: 1 to 32 characters of ``a-z0-9_-``; unique within its key or owner. It appears in headers and bodies.
        limit: Units per window, 1 to 1,000,000,000.
        per: ``second``, ``minute``, ``hour``, ``day`` or ``month`` (calendar windows in UTC), or a whole number of
            seconds from 1 to 31,622,400 (windows counted from 1970-01-01T00:00Z).
        unit: ``requests``, or a name of the setting ``units``.
        algorithm: ``fixed_window`` or ``sliding_window``. None: the setting ``rate_limit_algorithm``. A month is always
            fixed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, json_schema_extra=_describe_limit)

    name: str = Field(pattern=NAME_PATTERN, description="Unique within its key or owner.")
    limit: Annotated[int, BeforeValidator(_check_number)] = Field(ge=1, le=MAX_UNITS, description="Units per window.")
    per: Annotated[
        Literal["second", "minute", "hour", "day", "month"] | Annotated[int, Field(ge=1, le=MAX_WINDOW_S)],
        BeforeValidator(_check_per),
    ] = Field(description="A calendar window in UTC, or seconds counted from 1970.")
    unit: str = Field(
        REQUESTS, pattern=NAME_PATTERN, description="A unit that the service declares. Default: `requests`."
    )
    algorithm: Algorithm | None = Field(None, description="Default: that of the service.")

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
        """Return the limits of a key from its columns or fields: exactly its own, or the defaults."""
        if hourly_limit is None and limits is None:
            return self.defaults
        return self._resolve(_with_hourly(hourly_limit, map(Limit.model_validate, limits or ())))

    def of_owner(self, limits: Sequence[Mapping[str, Any]] | None) -> tuple[Limit, ...]:
        """Return the limits of an owner from its column: exactly its own, or the defaults."""
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
    """Return limits as they are stored: omitted fields stay unset, so that a new default applies."""
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
