"""Rows that no call can return any more are deleted; history and everything else stays."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.pagination import MAX_USAGE_HOURS
from fastapi_keyauth.domain.units import HOUR_S
from fastapi_keyauth.keys.retention import KEEP_OVER, KEEP_USAGE_HOURS, PRUNE_EVERY_S, Pruner
from fastapi_keyauth.store import PruneStore
from fastapi_keyauth.store import retention as pruning
from fastapi_keyauth.store.tables import EventRow, SessionRow, UsageRow, WriterRow, table

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)


async def add(auth: KeyAuth, row: type[Any], rows: list[dict[str, Any]]) -> None:
    async with auth._parts.database.write() as connection:
        await connection.execute(insert(table(row)), rows)


async def values(auth: KeyAuth, row: type[Any], column: str) -> list[Any]:
    async with auth._parts.database.read() as connection:
        return sorted((await connection.execute(select(table(row).c[column]))).scalars())


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
        hour = int(now.timestamp()) // HOUR_S
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
        hours = [hour, hour - MAX_USAGE_HOURS, hour - KEEP_USAGE_HOURS, *(hour - 1000 - n for n in range(5))]
        await add(auth, UsageRow, [{"key_id": "k", "hour": one, "admitted": 1, "refused": 0} for one in hours])
        await prune_all(auth)
        assert await values(auth, SessionRow, "token_hash") == ["kept", "new"]
        assert await values(auth, WriterRow, "id") == ["kept", "new"]
        assert await values(auth, UsageRow, "hour") == sorted(hours[:3])
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

        pruner = Pruner(Counted(auth._parts.database), auth._parts.now, lambda: clock)
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
        await add(here, UsageRow, [{"key_id": f"k{n}", "hour": 1, "admitted": 1, "refused": 0} for n in range(500)])
        await asyncio.gather(prune_all(here), prune_all(there))
        async with here._parts.database.read() as connection:
            assert (await connection.execute(select(func.count()).select_from(table(UsageRow)))).scalar_one() == 0
