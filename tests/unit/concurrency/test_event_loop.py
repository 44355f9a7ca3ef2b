"""One KeyAuth and several event loops: one after the other works, at the same time is refused with a clear sentence."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import KeyAuth
from tests.conftest import Stack
from tests.helpers.stage import MakeAuth

STARTED_ELSEWHERE = "KeyAuth is started in another event loop"
JOIN_TIMEOUT_S = 30


@contextmanager
def started_elsewhere(auth: KeyAuth) -> Iterator[None]:
    """A KeyAuth that is started in the event loop of another thread."""
    is_started, may_stop = threading.Event(), threading.Event()

    async def hold() -> None:
        async with auth:
            is_started.set()
            await asyncio.to_thread(may_stop.wait, JOIN_TIMEOUT_S)

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    try:
        assert is_started.wait(JOIN_TIMEOUT_S)
        yield
    finally:
        may_stop.set()
        thread.join(JOIN_TIMEOUT_S)
    assert not thread.is_alive()


async def start(auth: KeyAuth) -> None:
    async with auth:
        pass


CALLS: dict[str, Callable[[KeyAuth], Coroutine[Any, Any, Any]]] = {
    "start": start,
    "create": lambda auth: auth.keys.create("ada", "n"),
    "get": lambda auth: auth.keys.get("0" * 12),
    "list": lambda auth: auth.keys.list(),
    "revoke": lambda auth: auth.keys.revoke("0" * 12),
    "create a session": lambda auth: auth.sessions.create("ada"),
    "list blocks": lambda auth: auth.blocks.list(),
    "lift a block": lambda auth: auth.blocks.clear("203.0.113.7"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_from_another_event_loop_is_refused(
    make_auth: MakeAuth, call: Callable[[KeyAuth], Coroutine[Any, Any, Any]]
) -> None:
    auth = make_auth()
    with started_elsewhere(auth), pytest.raises(RuntimeError, match=STARTED_ELSEWHERE):
        asyncio.run(call(auth))


def test_a_request_that_is_served_in_another_event_loop_is_refused(make_auth: MakeAuth) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)
    app.get("/models", dependencies=[Depends(auth.require_key)])(lambda: "in")
    app.get("/open")(lambda: "open")

    async def ask(path: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return (await client.get(path, headers={"api-key": "wrong", "Origin": "https://a.example"})).status_code

    with started_elsewhere(auth):
        with pytest.raises(RuntimeError, match=STARTED_ELSEWHERE):
            asyncio.run(ask("/models"))
        assert asyncio.run(ask("/open")) == 200


def test_one_event_loop_after_the_other_may_start_it(make_auth: MakeAuth) -> None:
    auth = make_auth()

    async def create(number: int) -> None:
        async with auth:
            await asyncio.gather(*(auth.keys.create("ada", f"{number}-{count}") for count in range(20)))

    for number in range(3):
        asyncio.run(create(number))

    async def count() -> int:
        async with auth:
            return len((await auth.keys.list()).items)

    assert asyncio.run(count()) == 50


def test_a_start_that_fails_binds_nothing(tmp_path: Any, make_auth: MakeAuth, stack: Stack) -> None:
    folder = tmp_path / "later"
    auth = make_auth(database_url=f"sqlite+aiosqlite:///{folder}/keys.db", redis_url=None)
    with pytest.raises(ValueError, match="database"):
        asyncio.run(start(auth))
    folder.mkdir()
    asyncio.run(start(auth))


def test_trio_is_refused(make_auth: MakeAuth) -> None:
    """Without asyncio a coroutine runs under whatever drives it, here nothing."""
    with pytest.raises(RuntimeError, match="KeyAuth requires asyncio"):
        start(make_auth()).send(None)
