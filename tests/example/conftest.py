"""Fixtures of the example's tests."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import argon2
import pytest
from fastapi import FastAPI

from tests.example.cheap_passwords import CheapHasher
from tests.example.demo import Demo


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts the demo in the test's own folder, with the variables that are given."""
    with ExitStack() as cleanup:

        def start(workers: int = 1, module: str = "example_app", **env: str) -> Demo:
            demo = Demo(tmp_path, workers, module, **env)
            cleanup.callback(demo.close)
            return demo

        yield start


@pytest.fixture
def start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`python -m example_app` in this process, in the test's own folder: returns the code that it exits with.

    For starts that fail, so that not each of them takes a process. In a thread, as the demo makes an event loop.
    """

    def start(*options: str, **env: str) -> object:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["example_app", *options])
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        forget_example_app(monkeypatch)
        monkeypatch.setattr(logging.getLogger("fastapi_keyauth"), "handlers", [])  # the demo adds one
        main = importlib.import_module("example_app.__main__").main
        with ThreadPoolExecutor(1) as threads, pytest.raises(SystemExit) as exited:
            threads.submit(main).result()
        return exited.value.code

    return start


def forget_example_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it imported anew, for it reads its settings then; the test's modules go with the test."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_app"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
async def example_app(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """The example in this process, started, on an empty database. Imported anew, as it reads its settings then.

    Hashes, of keys and of passwords, cost nothing here; in `start_demo` they cost what they do for users.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYAUTH_DATABASE_URL", database_url)
    monkeypatch.setattr(argon2, "PasswordHasher", CheapHasher)
    monkeypatch.setenv("KEYAUTH_ARGON2_TIME_COST", "1")
    monkeypatch.setenv("KEYAUTH_ARGON2_MEMORY_KIB", "8")
    monkeypatch.setenv("KEYAUTH_ARGON2_PARALLELISM", "1")
    forget_example_app(monkeypatch)
    app: FastAPI = importlib.import_module("example_app.app").app
    async with app.router.lifespan_context(app):
        yield app
