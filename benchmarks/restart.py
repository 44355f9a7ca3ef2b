"""CPU that a worker needs after a restart until it has admitted every known key once, with and without tickets."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.growth import settings
from fastapi_keyauth import KeyAuth
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import ClientAddress

WITH_TICKETS = 1000
WITH_ARGON2 = 100
AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Restart:
    """CPU seconds of a restarted worker for 1,000 keys: by tickets, and by Argon2 (from ``WITH_ARGON2`` keys)."""

    tickets_s: float
    argon2_s: float


def measure(folder: Path, redis_url: str) -> Restart:
    """Create keys in one process, and admit each of them once in another, with the default cost of Argon2."""
    ticket_key = secrets.token_urlsafe(32)
    seconds = {}
    for name, count, ticket_keys in (("tickets", WITH_TICKETS, (ticket_key,)), ("argon2", WITH_ARGON2, ())):
        database = folder / f"restart-{name}.db"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            tokens = process.submit(_create, database, redis_url, ticket_keys, count).result()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds[name] = process.submit(_restart, database, redis_url, ticket_keys, tokens).result() * 1000 / count
    return Restart(seconds["tickets"], seconds["argon2"])


def _create(database: Path, redis_url: str, ticket_keys: tuple[str, ...], count: int) -> list[str]:
    async def run() -> list[str]:
        async with KeyAuth(settings(database, redis_url=redis_url, ticket_key=ticket_keys)) as auth:
            created = [await auth.keys.create(owner_id=f"owner-{n}", name="key") for n in range(count)]
            tokens = [key.token for key in created]
            if ticket_keys:
                await _admit(auth, tokens)
            return tokens

    return asyncio.run(run())


def _restart(database: Path, redis_url: str, ticket_keys: tuple[str, ...], tokens: list[str]) -> float:
    async def run() -> float:
        async with KeyAuth(settings(database, redis_url=redis_url, ticket_key=ticket_keys)) as auth:
            began = time.process_time()
            await _admit(auth, tokens)
            return time.process_time() - began

    return asyncio.run(run())


async def _admit(auth: KeyAuth, tokens: list[str]) -> None:
    """Admit each key once, some of them at a time."""
    authenticator = auth._parts.request_handler.authenticator
    address = ClientAddress("127.0.0.1", "127.0.0.1", None)
    for start in range(0, len(tokens), AT_A_TIME):
        batch = tokens[start : start + AT_A_TIME]
        await asyncio.gather(
            *(authenticator.authenticate_key(AuthContext(Credentials(token), address, None)) for token in batch)
        )
