"""keyshield 2.0.1 as in its README for FastAPI: bearer keys in SQLite, Argon2, last_used_at written by each request.

BENCH_VARIANT=default is as it comes: Argon2 each time, then a random 0.1 to 0.3 s of delay. "cached" is its
CachedApiKeyService (Argon2 once in 300 s, cache in memory) with the delay set to 0; the write stays. The table is made
once at start, not per request as in the README. It has no limits, and so no Redis.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import common
from aiocache import SimpleMemoryCache
from fastapi import Depends, FastAPI
from keyshield import ApiKey, ApiKeyService
from keyshield.api import create_depends_api_key
from keyshield.hasher.argon2 import Argon2ApiKeyHasher
from keyshield.repositories.sql import SqlAlchemyApiKeyRepository
from keyshield.services.cached import CachedApiKeyService
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

IS_CACHED = {"default": False, "cached": True}[os.environ["BENCH_VARIANT"]]

engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ['BENCH_DIR']}/keys.db")
open_session = async_sessionmaker(engine, expire_on_commit=False)
hasher = Argon2ApiKeyHasher(pepper=secrets.token_hex(32))
cache = SimpleMemoryCache()


def service_on(session: AsyncSession) -> ApiKeyService:
    repository = SqlAlchemyApiKeyRepository(session)
    if IS_CACHED:
        return CachedApiKeyService(repository, hasher, cache, min_delay=0, max_delay=0)
    return ApiKeyService(repository, hasher)


async def give_session() -> AsyncIterator[AsyncSession]:
    async with open_session() as session, session.begin():
        yield session


async def give_service(session: Annotated[AsyncSession, Depends(give_session)]) -> ApiKeyService:
    return service_on(session)


require_key = create_depends_api_key(give_service)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with open_session() as session, session.begin():
        await SqlAlchemyApiKeyRepository(session).ensure_table(engine)
        _, key = await service_on(session).create(name="bench")
    common.tell([{"Authorization": f"Bearer {key}"}])
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/item")
async def item(key: Annotated[ApiKey, Depends(require_key)]) -> dict[str, object]:
    return common.ITEM
