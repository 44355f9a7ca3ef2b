"""Limits by themselves."""

from fastapi_keyauth import Limit


def test_a_copy_follows_its_own_fields_whatever_was_read_before() -> None:
    limit = Limit(name="plan", limit=5, per="hour")
    assert (limit.is_sliding, limit.window_ms, limit.counter_id) == (False, 3_600_000, "plan/hour/requests/")
    copied = limit.model_copy(update={"algorithm": "sliding_window", "per": "day"})
    assert (copied.is_sliding, copied.window_ms, copied.counter_id) == (True, 86_400_000, "plan/day/requests/")
