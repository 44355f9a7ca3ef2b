"""Reports over a year of a thousand keys are read in small parts, and delay neither admissions nor management."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.usage import day_number
from fastapi_keyauth.http.routers.usage import write_json
from fastapi_keyauth.keys.usage_reports import KEYS_PER_READ
from fastapi_keyauth.store import UsageReportStore
from tests.helpers.keys import authenticate

MakeAuth = Callable[..., KeyAuth]
KEYS, DAYS, USED_DAYS = 1000, 365, 53
YEAR = date(2025, 1, 1), date(2026, 1, 1)
FIRST = day_number(YEAR[0])
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
KEY_ROWS = """
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999)
INSERT INTO keyauth_keys (id, name, owner_id, environment, scopes, metadata, allowed_origins, allowed_ips, enabled,
 created_at, prefix)
SELECT 'k' || (10000000000 + n), 'k', 'o' || (n % 10), 'live', '[]', '{}', '[]', '[]', true, '2025-01-01 00:00:00', 'ka'
FROM numbers
"""
DAY_ROWS = """
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 364)
INSERT INTO keyauth_usage_days (prefix, day, owner_id, key_id, unit, units, refused)
SELECT 'ka', :first + n, owner_id, id, 'requests', 2, 1 FROM numbers, keyauth_keys WHERE n % 7 = 0
"""
"""Each key is used on one day of the week: rows for all days take seconds to write."""
CLOSING_ROW = "INSERT INTO keyauth_usage_closings (prefix, since, open_day) VALUES ('ka', :first, :first + 365)"


async def fill(auth: KeyAuth) -> None:
    async with auth._parts.database.write() as connection:
        await connection.execute(text(KEY_ROWS))
        for statement in (DAY_ROWS, CLOSING_ROW):
            await connection.execute(text(statement), {"first": FIRST})


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_year_of_a_thousand_keys_is_read_in_small_parts(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    real = UsageReportStore.sum_up

    async def counted(*args: Any) -> Any:
        found = await real(*args)
        rows.append(len(found))
        return found

    monkeypatch.setattr(UsageReportStore, "sum_up", counted)
    async with make_auth(clock=NOON.timestamp) as auth:
        await fill(auth)
        counts = {"day": DAYS, "month": 12, "key": KEYS, "unit": 1}
        for by, count in counts.items():
            rows.clear()
            found = await auth.usage.report(*YEAR, by)  # type: ignore[arg-type]  # the keys are those of By
            assert len(found) == count
            assert sum(item.units["requests"] for item in found) == 2 * KEYS * USED_DAYS
            assert all(item.closed for item in found)
            assert len(rows) > 1, by
            assert max(rows) <= KEYS_PER_READ
        of_one = await auth.usage.report(*YEAR, "month", owner_id="o3")
        assert sum(item.units["requests"] for item in of_one) == 2 * KEYS * USED_DAYS / 10
        parts = [part async for part in write_json(_stream(auth), "key")]
        assert max(map(len, parts)) < 200
        assert len(json.loads("".join(parts))["items"]) == KEYS


def _stream(auth: KeyAuth) -> AsyncIterator[Any]:
    return auth.usage.stream(auth.usage.find_range(*YEAR), "key")


@pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)
async def test_reports_that_take_long_do_not_hold_up_admissions(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        seen = await auth.keys.create(owner_id="o", name="k")
        await authenticate(auth, seen.token)
        unseen = [await auth.keys.create(owner_id="o", name="k") for _ in range(3)]
        await auth._parts.usage.flush()
        async with auth._parts.database.write(is_urgent=True) as connection:
            await connection.execute(text("LOCK TABLE keyauth_usage_days IN ACCESS EXCLUSIVE MODE"))
            reports = [asyncio.create_task(auth.usage.report(date(2020, 1, 1), date(2020, 2, 1))) for _ in range(20)]
            await asyncio.wait(reports, timeout=0.2)
            assert not any(report.done() for report in reports)
            for created in (seen, *unseen):
                await authenticate(auth, created.token)
            await auth.keys.revoke(seen.key.id)
            await auth._parts.usage.flush()
            assert auth._parts.usage.count_lost() == 0
            assert not any(report.done() for report in reports)
        await asyncio.gather(*reports)
