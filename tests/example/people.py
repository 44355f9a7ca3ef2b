"""Users of the example: log in, and create keys."""

from __future__ import annotations

from typing import Any

import httpx

PASSWORD = "correct horse battery"


async def log_in(client: httpx.AsyncClient, email: str = "alice@example.com", password: str = PASSWORD) -> str:
    """Sign up if necessary, and return a new session token."""
    await client.post("/signup", json={"email": email, "password": password})
    answer = await client.post("/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["session_token"])


def bearer(session: str) -> dict[str, str]:
    """Return the header of a session."""
    return {"Authorization": f"Bearer {session}"}


async def create_key(client: httpx.AsyncClient, session: str, **fields: Any) -> dict[str, Any]:
    """Create a key of that user's team, and return it with its token."""
    answer = await client.post("/api-keys", json={"name": "test", **fields}, headers=bearer(session))
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def make_key(client: httpx.AsyncClient, session: str, **fields: Any) -> str:
    """Return the token of a new key of that user's team."""
    return str((await create_key(client, session, **fields))["token"])
