"""Workers and a measured load, shared by the tests of groups of servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import ClientAddress
from fastapi_keyauth.errors import KeyAuthError
from tests.helpers import waiting

TIMEOUT_S = 2.0
"""Short, because tests wait for it, but long enough for a busy machine."""
HANGS_S = 15.0
"""Limit after which a request counts as hung; a busy machine exceeds ``redis_timeout_s`` for other reasons."""
until = partial(waiting.until, within_s=30.0)
"""Limit for a failover, which takes longer on a busy machine."""


def worker(folder: Path, redis_url: str, **settings: Any) -> KeyAuth:
    """Return one of several workers on a database of the test's own, not yet started."""
    values = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "redis_timeout_s": TIMEOUT_S, **settings}
    url = f"sqlite+aiosqlite:///{folder / 'keyauth.db'}"
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=url, redis_url=redis_url, **values))


async def outcome(auth: KeyAuth, token: str, address: str = "x") -> str:
    """Send one request with this token and return its outcome."""
    visit = AuthContext(Credentials(token), ClientAddress(address, address, None), None)
    try:
        await auth._parts.request_handler.authenticator.authenticate_key(visit)
    except KeyAuthError as error:
        return type(error).__name__
    return "admitted"


@dataclass
class Load:
    """An endless load from several clients, with its outcomes and the longest request."""

    seen: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    last_outage_at: float = 0.0
    first_outage_at: float = 0.0

    async def client(self, ask: Callable[[], Awaitable[str]]) -> None:
        """Run one client, which sends the next request as soon as it receives a response."""
        while True:
            began = time.monotonic()
            said = await ask()
            ended = time.monotonic()
            self.seen[said] += 1
            self.slowest_s = max(self.slowest_s, ended - began)
            if said == "LimiterUnavailable":
                self.first_outage_at = self.first_outage_at or began
                self.last_outage_at = ended
            await asyncio.sleep(0.002)  # A pause between requests, so that clients do not starve the servers.

    @property
    def outage_s(self) -> float:
        """Return the seconds from the first request without an available limiter to the last."""
        return self.last_outage_at - self.first_outage_at


@asynccontextmanager
async def loaded(*asks: Callable[[], Awaitable[str]]) -> AsyncIterator[Load]:
    """Run one client for each of ``asks``; their exceptions fail the test."""
    load = Load()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load.client(ask)) for ask in asks]
        yield load
        for task in tasks:
            task.cancel()
