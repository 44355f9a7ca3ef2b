"""The counters of a key or owner in memory: how many are kept, and which."""

from __future__ import annotations

from fastapi_keyauth.limiter.holders import MAX_COUNTERS, Holder
from tests.helpers.limits import resolved

NOW_MS = 1_800_000_000_000


def test_counters_of_replaced_limits_do_not_accumulate_and_those_in_force_stay() -> None:
    holder = Holder()
    kept = resolved(name="kept", limit=10, per="day")
    holder.rooms([kept], NOW_MS)[0].counter.charge(3)
    for length in range(100, 100 + 2 * MAX_COUNTERS):
        replaced = resolved(name=f"n{length}", limit=10, per=length)
        room, _ = holder.rooms([kept, replaced], NOW_MS)
        assert room.free == 7
    assert len(holder.counters) == MAX_COUNTERS


def test_a_limit_that_is_replaced_first_is_forgotten_first() -> None:
    holder = Holder()
    limits = [resolved(name=f"n{length}", limit=10, per=length) for length in range(100, 101 + MAX_COUNTERS)]
    for limit in limits:
        holder.rooms([limit], NOW_MS)[0].counter.charge(1)
    assert limits[0].counter_id not in holder.counters
    assert all(limit.counter_id in holder.counters for limit in limits[1:])
