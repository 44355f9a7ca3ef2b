"""Rows that no call can return any more are deleted; history and everything else stays."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.usage import HOURS_OF_DAY, hour_of
from fastapi_keyauth.keys.retention import KEEP_OVER, PRUNE_EVERY_S, Pruner
from fastapi_keyauth.store import PruneStore
from fastapi_keyauth.store import retention as pruning
from fastapi_keyauth.store.tables import EventRow, SessionRow, UsageClosingRow, UsageHourRow, WriterRow, table

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)


async def add(auth: KeyAuth, row: type[Any], rows: list[dict[str, Any]]) -> None:
    async with auth._parts.database.write() as connection:
        await connection.execute(insert(table(row)), rows)


async def values(auth: KeyAuth, row: type[Any], column: str) -> list[Any]:
    async with auth._parts.database.read() as connection:
        return sorted((await connection.execute(select(table(row).c[column]))).scalars())


def usage_rows(hours: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {"key_id": "k", "hour": hour, "unit": "requests", "prefix": "ka", "source": "", "units": 1, "refused": 0}
        for hour in hours
    ]


async def close_before(auth: KeyAuth, hour: int) -> None:
    """Close the days before the one that has this hour."""
    async with auth._parts.database.write() as connection:
        await connection.execute(delete(table(UsageClosingRow)))
        day = hour // HOURS_OF_DAY
        await connection.execute(insert(table(UsageClosingRow)), [{"prefix": "ka", "since": 0, "open_day": day}])


async def prune_all(auth: KeyAuth) -> None:
    pruner, rounds = auth._parts.pruner, 0
    pruner._due_at = 0
    while pruner._due_at == 0:
        await pruner.prune_when_due()
        rounds += 1
        assert rounds < 10


async def test_only_what_is_long_over_goes(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 2)
    async with make_auth() as auth:
        created = await auth.keys.create(owner_id="a", name="k")
        await auth.keys.revoke(created.key.id)
        now = auth._parts.now()
        hour, kept = hour_of(now), auth.settings.usage_hours_kept
        ages = {"new": timedelta(0), "kept": KEEP_OVER - timedelta(hours=1)} | {
            f"old{number}": KEEP_OVER + timedelta(hours=number + 1) for number in range(5)
        }
        await add(
            auth,
            SessionRow,
            [
                {"token_hash": name, "user_id": "a", "scopes": [], "created_at": now, "expires_at": now - age}
                for name, age in ages.items()
            ],
        )
        await add(auth, WriterRow, [{"id": name, "batch": 1, "at": now - age} for name, age in ages.items()])
        hours = [hour, hour - kept + 24, hour - kept, *(hour - 1000 - n for n in range(5))]
        await add(auth, UsageHourRow, usage_rows(hours))
        await close_before(auth, hour)
        await prune_all(auth)
        assert await values(auth, SessionRow, "token_hash") == ["kept", "new"]
        assert await values(auth, WriterRow, "id") == ["kept", "new"]
        assert await values(auth, UsageHourRow, "hour") == sorted(hours[:3])
        assert await values(auth, EventRow, "event") == ["created", "revoked"]
        assert (await auth.keys.get(created.key.id)).status == "revoked"


async def test_a_round_takes_place_once_an_hour(make_auth: MakeAuth) -> None:
    clock = 1000.0
    async with make_auth() as auth:
        calls = 0

        class Counted(PruneStore):
            async def prune(self, *_: Any) -> bool:
                nonlocal calls
                calls += 1
                return calls < 3  # three batches, then nothing is left

        pruner = Pruner(Counted(auth._parts.database, "ka"), 192, auth._parts.now, lambda: clock)
        pruner.start()
        await pruner.prune_when_due()
        assert calls == 0
        clock += PRUNE_EVERY_S
        for _ in range(5):
            await pruner.prune_when_due()
        assert calls == 3
        clock += PRUNE_EVERY_S
        await pruner.prune_when_due()
        assert calls == 4


async def test_workers_prune_concurrently(make_auth: MakeAuth) -> None:
    here, there = make_auth(), make_auth()
    async with here, there:
        await add(here, UsageHourRow, usage_rows(range(500)))
        await close_before(here, 504)
        await asyncio.gather(prune_all(here), prune_all(there))
        async with here._parts.database.read() as connection:
            assert (await connection.execute(select(func.count()).select_from(table(UsageHourRow)))).scalar_one() == 0


async def test_hours_of_a_day_that_is_not_closed_stay(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        now = hour_of(auth._parts.now())
        await add(auth, UsageHourRow, usage_rows([now - 1000, now - 900]))
        await close_before(auth, now - 900)
        await prune_all(auth)
        assert await values(auth, UsageHourRow, "hour") == [now - 900]
