"""The timer of leases, with a clock of the test."""

from __future__ import annotations

import asyncio

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.leases.terms import Plan
from fastapi_keyauth.limiter.redis.leasing import Leasing
from fastapi_keyauth.telemetry.counters import Counters

LIMITS = limit_set((hour_limit(1000).model_copy(update={"algorithm": "fixed_window"}),), ())
QUESTION = LimitCheck("k", None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")


async def test_lease_that_arrives_too_late_is_returned_without_a_further_request() -> None:
    now = [1000.0]
    sent: asyncio.Queue[Plan] = asyncio.Queue()
    leasing = Leasing(100, lambda: now[0], Counters(), sent.put_nowait)
    questions = [QUESTION] * 4
    plan = leasing.plan(questions)
    leasing.mark_sent(plan, 0)
    now[0] += 0.2
    grants = [5, "1000100  key owner 500000", 500_000, 1800, [900, 1800, 1_800_003_600, 100]]
    decisions = [Decision(Verdict.ADMITTED, states=(900, 1800, 1_800_003_600))] * 4
    leasing.receive(questions, decisions, plan, grants, 0)
    assert leasing.admit(QUESTION) is None
    returning = await asyncio.wait_for(sent.get(), 10)
    assert [(lease.used, lease.left) for lease in returning.returns] == [(0, 5)]
    leasing.end()
