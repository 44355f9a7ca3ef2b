"""A key, a request with it but without HTTP, and calls that are held back."""

import asyncio
from typing import Any

import pytest

from fastapi_keyauth import CreatedKey, KeyAuth
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import ClientAddress
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.store import KeyStore


async def authenticate(auth: KeyAuth, token: str) -> KeyPrincipal:
    """Authenticate one request with this token, without HTTP."""
    credentials = Credentials(token)
    return await auth._parts.request_handler.authenticator.authenticate_key(
        AuthContext(credentials, ClientAddress("x", "x", None), None)
    )


class Gate:
    """A gate that lets one call of a coroutine function finish and then holds back its result."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.calls = 0
        self._real = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        first = self.calls == 1
        answer = await self._real(*args, **kwargs)
        if first:
            self.reached.set()
            await self.opened.wait()
        return answer


class CountedCalls:
    """A wrapper of a coroutine function that counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self._calls = asyncio.Semaphore(0)
        self._real = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calls.release()
        return await self._real(*args, **kwargs)

    async def reach(self, count: int) -> None:
        """Wait until this many calls were made."""
        for _ in range(count):
            await self._calls.acquire()


def store_of(auth: KeyAuth) -> KeyStore:
    return auth._parts.store


async def make_key(auth: KeyAuth) -> CreatedKey:
    return await auth.keys.create(owner_id="alice", name="k")
