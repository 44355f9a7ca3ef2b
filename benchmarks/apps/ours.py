"""fastapi-keyauth with everything on: hourly limit, block, immediate revocation, headers. BENCH_VARIANT says how."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import common
from fastapi import Depends, FastAPI

from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal
from fastapi_keyauth.domain.tokens import checksum, new_key_id

LIMITER, _, SHAPE = os.environ["BENCH_VARIANT"].partition("-")
MANY = {"cold": 64, "turn": 1000}
CHEAP = {"argon2_time_cost": 1, "argon2_memory_kib": 8} if SHAPE == "turn" else {}
GUESSES = 50_000 if os.environ.get("BENCH_GUESSES") == "1" else 1

auth = KeyAuth(
    KeyAuthSettings(
        database_url=f"sqlite+aiosqlite:///{os.environ.get('BENCH_DATABASE', os.environ['BENCH_DIR'] + '/keys.db')}",
        redis_url=os.environ["BENCH_REDIS_URL"] if LIMITER == "redis" else None,
        # A prefix names the counters in Redis: each server has its own.
        key_prefix="k" + secrets.token_hex(4),
        default_hourly_limit=1_000_000_000,
        block_after_failures=10 if SHAPE.startswith("blocked") else 1_000_000,
        block_for_s=86_400,
        # One entry and many keys in turn: every request is the first sight of its key.
        cache_size=1 if SHAPE == "cold" else 10_000,
        **CHEAP,
    )
)


def made_up(key_id: str) -> str:
    """A well-formed token that was never given out."""
    body = f"{auth.settings.key_prefix}_live_{key_id}_{secrets.token_hex(32)[:43]}"
    return body + checksum(body)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with auth:
        made = [await auth.keys.create(owner_id="alice", name="bench") for _ in range(MANY.get(SHAPE, 1))]
        tokens = {
            "valid": [made[0].token],
            "many": [key.token for key in made],
            "unknown": [made_up(new_key_id())],
            "wrong": [made_up(made[0].key.id)],
            "guesses": [made_up(new_key_id()) for _ in range(GUESSES)],
        }
        common.tell({name: [{"api-key": token} for token in group] for name, group in tokens.items()})
        yield


app = FastAPI(lifespan=lifespan)

if SHAPE.endswith("middleware"):

    @app.get("/item")
    async def item() -> dict[str, object]:
        return common.ITEM

    auth.protect(app)
else:
    auth.install(app)

    @app.get("/item")
    async def item_of_key(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, object]:
        return common.ITEM
