"""Fixtures of the contract's tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, open_stack
from tests.helpers.contract_app import build_app
from tests.helpers.session import Servers
from tests.helpers.stage import Clock, MakeAuth, MakeClient, OpenScene, Scene

BOTH_STORES_AND_LIMITERS = ("sqlite-memory", "postgres-valkey")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each module on the stacks in its STACKS; by default, on both stores and both limiters."""
    if "stack" in metafunc.fixturenames:
        stacks = getattr(metafunc.module, "STACKS", BOTH_STORES_AND_LIMITERS)
        metafunc.parametrize("stack", stacks, indirect=True)


@pytest.fixture
def stack(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """Yield the stack that `pytest_generate_tests` chose."""
    yield from open_stack(request.param, servers, tmp_path)


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the test's KeyAuth."""
    return Clock()


@pytest.fixture
def open_scene(make_auth: MakeAuth, make_client: MakeClient, clock: Clock) -> OpenScene:
    """Yield a function that starts a KeyAuth in the test's app, with settings and `session_resolver`."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Scene]:
        auth = make_auth(clock=clock, **{"realm": "tests", **settings})
        app = build_app(auth)
        async with auth:
            yield Scene(auth, app, clock, make_client)

    return opened


@pytest.fixture
async def patient_scene(open_scene: OpenScene) -> AsyncIterator[Scene]:
    """Yield a scene that outlives Hypothesis' examples and never blocks an address. One task opens and
    closes it, since some parts must be stopped in the task that started them."""
    patience = {"block_after_failures": 1_000_000, "trusted_proxies": ["10.0.0.0/8"]}
    opened: asyncio.Future[Scene] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        try:
            async with open_scene(**patience) as scene:
                opened.set_result(scene)
                await done.wait()
        except BaseException as error:
            if not opened.done():
                opened.set_exception(error)
            raise

    holder = asyncio.create_task(hold())
    yield await opened
    done.set()
    await holder
