"""A client connection that reconnects after a loss and reports requests that got no response."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from reliability.ledger import Ledger
from tests.helpers.fleet import Answer, Connection

HANG_S = 60.0
"""Seconds after which a request counts as never answered."""
CONNECT_S = 30.0
_RETRY_S = 0.05


class Line:
    """A connection that sends one request at a time.

    Args:
        base_url: Base URL of the workers.
        ledger: Receives every response.
        address: The client's address, sent in X-Forwarded-For.

    Attributes:
        worker: Process id of the worker that holds the connection, 0 before its first response.
    """

    def __init__(self, base_url: str, ledger: Ledger, address: str) -> None:
        self._base_url = base_url
        self._ledger = ledger
        self._address = address
        self._connection: Connection | None = None
        self.worker = 0

    async def ask(
        self, method: str, path: str, *, token: str | None = None, session: str | None = None, body: Any = None
    ) -> Answer | None:
        """Send a request. Return None if the connection ended without a response."""
        headers = {"x-forwarded-for": self._address}
        if token is not None:
            headers["api-key"] = token
        if session is not None:
            headers["authorization"] = f"Bearer {session}"
        connection = await self._connected()
        try:
            async with asyncio.timeout(HANG_S):
                answer = await connection.ask(method, path, headers, body)
        except TimeoutError:
            self._ledger.hung(f"{method} {path}")
            await self.close()
            return None
        except (OSError, asyncio.IncompleteReadError):
            self._ledger.lost()
            await self.close()
            return None
        except asyncio.CancelledError:
            await self.close()  # A response still in flight must not be taken for that to the next request.
            raise
        self.worker = answer.worker
        self._ledger.note(answer, f"{method} {path.partition('?')[0]}")
        if answer.headers.get("connection") == "close":
            await self.close()
        return answer

    async def _connected(self) -> Connection:
        deadline = time.monotonic() + CONNECT_S
        while self._connection is None:
            try:
                self._connection = await Connection.open(self._base_url)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY_S)
        return self._connection

    async def close(self) -> None:
        """Close the connection; the next request opens another one."""
        connection, self._connection = self._connection, None
        self.worker = 0
        if connection is not None:
            try:
                await connection.close()
            except OSError:
                return
