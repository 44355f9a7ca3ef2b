"""Taking connections from the pool of an engine, and closing those that are idle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_keyauth.store.engine import POOL_TIMEOUT_S
from fastapi_keyauth.store.failures import OUTAGES, is_out_of_slots

SLOT_RETRY_S = 0.1
"""Seconds between attempts to get a connection while the server has no room for another one."""
LEAVE_TIMEOUT_S = 1.0
"""Seconds for idle connections to be closed. A server that has not responded by then gets a tenth for each."""


@asynccontextmanager
async def check_out(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Take a connection from the pool. If the server has no room for another one, wait for one that is in use."""
    has_begun = False
    deadline = monotonic() + POOL_TIMEOUT_S
    while not has_begun:
        try:
            async with engine.connect() as connection:
                has_begun = True
                yield connection
        except OUTAGES as error:
            if has_begun or not is_out_of_slots(error) or monotonic() > deadline:
                raise
            await asyncio.sleep(SLOT_RETRY_S)


async def close_idle(engine: AsyncEngine, size: int) -> None:
    """Close the idle connections. A PostgreSQL that hangs must not hold up the stop.

    Args:
        engine: The engine.
        size: Maximum number of its connections.
    """
    if engine.dialect.name == "sqlite":
        await engine.dispose()
        return
    patience_s = LEAVE_TIMEOUT_S
    for _ in range(size):
        try:
            async with asyncio.timeout(patience_s):
                await engine.dispose()  # one after the other; the one that is given up is closed all the same
                return
        except TimeoutError:
            patience_s = LEAVE_TIMEOUT_S / 10
