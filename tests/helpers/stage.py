"""A stage for the contract's tests: a manual clock, an app, and one way to send a request."""

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
from fastapi import FastAPI

from fastapi_keyauth import KeyAuth
from tests.helpers.tokens import NO_TOKEN

HOME = "203.0.113.7"
ELSEWHERE = "198.51.100.200"
OWNER = "owner-1"
HOUR_S = 3600
INTO_THE_HOUR_S = 1200
LEFT_OF_THE_HOUR_S = HOUR_S - INTO_THE_HOUR_S
ROW_FIELDS = {
    "limits",
    "id",
    "name",
    "owner_id",
    "environment",
    "hint",
    "scopes",
    "hourly_limit",
    "allowed_origins",
    "allowed_ips",
    "metadata",
    "status",
    "enabled",
    "created_at",
    "expires_at",
    "revoked_at",
    "last_used_at",
    "secrets",
    "created_by",
}

MakeAuth = Callable[..., KeyAuth]
MakeClient = Callable[..., httpx.AsyncClient]


class Clock:
    """A clock in epoch seconds that moves only on request; starts 1200 s into an hour."""

    def __init__(self) -> None:
        self.now = float((int(time.time()) // HOUR_S + 1) * HOUR_S + INTO_THE_HOUR_S)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`."""
        self.now += seconds

    def to_next_hour(self, plus_s: float = 0.0) -> None:
        """Advance to the start of the next clock hour, plus `plus_s` seconds."""
        self.now = float((int(self.now) // HOUR_S + 1) * HOUR_S) + plus_s

    def moment(self, plus_s: float = 0.0) -> datetime:
        """Return the time `plus_s` seconds from now, as an aware datetime."""
        return datetime.fromtimestamp(self.now + plus_s, UTC)

    def rfc3339(self, plus_s: float = 0.0) -> str:
        """Return the time `plus_s` seconds from now, as RFC 3339 text."""
        return self.moment(plus_s).isoformat()


@dataclass(frozen=True)
class Issued:
    """A key created for a test: its id, its token, and its row."""

    id: str
    token: str
    row: Any


@dataclass
class Scene:
    """A started KeyAuth in an app, and methods that send requests to it."""

    auth: KeyAuth
    app: FastAPI
    clock: Clock
    make_client: MakeClient

    async def key(self, *, owner_id: str = OWNER, name: str = "test key", **fields: Any) -> Issued:
        """Create a key with trusted code."""
        created = await self.auth.keys.create(owner_id=owner_id, name=name, **fields)
        return Issued(created.key.id, created.token, created.key)

    async def session(self, user_id: str = OWNER, scopes: Sequence[str] = ("*",), ttl_s: float = 86400 * 400) -> str:
        """Create a session and return its token."""
        return await self.auth.sessions.create(user_id, scopes=tuple(scopes), ttl=timedelta(seconds=ttl_s))

    async def caller(self, kind: str, scopes: str, *, user_id: str = OWNER, **fields: Any) -> dict[str, Any]:
        """Return credentials for `send`: a session or a key with these space-separated scopes."""
        if kind == "session":
            return {"bearer": await self.session(user_id, scopes.split())}
        key = await self.key(owner_id=user_id, name="caller", scopes=scopes.split(), **fields)
        return {"token": key.token}

    async def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        bearer: str | None = None,
        origin: str | None = None,
        address: str = HOME,
        headers: Sequence[tuple[str, str]] = (),
        json: Any = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> httpx.Response:
        """Send one request: `token` as the api-key header, `bearer` as Authorization."""
        lines = list(headers)
        if token is not None:
            lines.append(("api-key", token))
        if bearer is not None:
            lines.append(("authorization", f"Bearer {bearer}"))
        if origin is not None:
            lines.append(("origin", origin))
        if content is not None:
            lines.append(("content-type", "application/json"))
        async with self.make_client(self.app, address) as client:
            return await client.request(method, path, headers=lines, json=json, content=content)

    async def get(self, path: str = "/models", **rest: Any) -> httpx.Response:
        """Send a GET request."""
        return await self.send("GET", path, **rest)

    async def fail(self, times: int = 1, address: str = HOME) -> list[int]:
        """Make failed attempts, one after another; return their statuses."""
        return [(await self.get(token=NO_TOKEN, address=address)).status_code for _ in range(times)]

    async def spend(self, token: str, times: int = 1) -> list[int]:
        """Send requests with a key, one after another; return their statuses."""
        return [(await self.get(token=token)).status_code for _ in range(times)]


class OpenScene(Protocol):
    """`async with open_scene(**settings) as scene:` starts a KeyAuth with these settings."""

    def __call__(self, **settings: Any) -> AbstractAsyncContextManager[Scene]: ...


def code_of(answer: httpx.Response) -> str | None:
    """Return the problem's `code`; None for a success, or an error that is not the plugin's."""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        code: str = answer.json()["code"]
        return code
    return None


def challenges_of(answer: httpx.Response) -> list[str]:
    """Return the WWW-Authenticate lines, in their order."""
    return answer.headers.get_list("www-authenticate")


def remaining_of(answer: httpx.Response) -> int:
    """Return the `r` of the RateLimit header."""
    found = re.search(r";\s*r=(\d+)", answer.headers["ratelimit"])
    assert found is not None, answer.headers["ratelimit"]
    return int(found[1])


def quota_of(answer: httpx.Response) -> int | None:
    """Return the `q` of the RateLimit-Policy header; None for a key without an hourly limit."""
    found = re.search(r";\s*q=(\d+)", answer.headers.get("ratelimit-policy", ""))
    return None if found is None else int(found[1])


def whole_seconds(text: str) -> int:
    """Parse a Retry-After value, which must be whole seconds."""
    assert re.fullmatch(r"[0-9]+", text), text
    return int(text)
