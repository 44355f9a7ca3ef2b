"""Fixtures of the example's tests."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.example.demo import Demo
from tests.processes import wait_until

NEEDED_S = 20.0


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts the demo in the test's own folder, with the variables that are given."""
    with ExitStack() as cleanup:

        def start(workers: int = 1, **env: str) -> Demo:
            demo = Demo(tmp_path, workers, **env)
            cleanup.callback(demo.close)
            return demo

        yield start


@pytest.fixture
async def example_app(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """The example in this process, started, on an empty database. Imported anew, as it reads its settings then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYAUTH_DATABASE_URL", database_url)
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_app"]:
        monkeypatch.delitem(sys.modules, name)
    app: FastAPI = importlib.import_module("example_app.app").app
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
def stay_within_the_hour() -> Callable[[], None]:
    """A cap is counted by the clock hour: near its end, waits for the next one."""

    def wait() -> None:
        wait_until(lambda: time.time() % 3600 < 3600 - NEEDED_S, timeout_s=NEEDED_S + 5)

    return wait
