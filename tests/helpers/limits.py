"""Short constructors of requests to limiters."""

from typing import Any

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, limit_set
from fastapi_keyauth.domain.limits import Limit, hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck


def resolved(**fields: Any) -> Limit:
    """Return a limit with an algorithm, as limiters receive it."""
    return Limit(**{"name": "l", "per": "hour", "algorithm": "fixed_window", **fields})


def hourly(limit: int | None, algorithm: str = "fixed_window") -> tuple[Limit, ...]:
    """Return the limits of a key with only this hourly limit."""
    return () if limit is None else (hour_limit(limit).model_copy(update={"algorithm": algorithm}),)


def question(key_id: str = "k", limit: int | None = 5, units: int = 1, **options: Any) -> LimitCheck:
    """Return a check of a key with an hourly limit, by a worker that has just read its row unless `age_s` is given."""
    algorithm = options.pop("algorithm", "fixed_window")
    is_fresh = options.pop("is_fresh", "age_s" not in options)
    return LimitCheck(
        key_id,
        options.pop("bucket", None),
        limit_set(options.pop("key", hourly(limit, algorithm)), options.pop("owner", ())),
        options.pop("cost", ONE_REQUEST if units else None),
        age_s=options.pop("age_s", 0.0),
        is_fresh=is_fresh,
        **options,
    )


def left_of(decision: Decision) -> int | None:
    """Return the remaining units of the first limit."""
    return decision.states[0] if decision.states else None
