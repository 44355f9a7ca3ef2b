"""Fixtures of the example's tests."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from types import ModuleType

import argon2
import pytest
from fastapi import FastAPI

from tests.example.cheap_passwords import CheapHasher
from tests.example.demo import Demo
from tests.example.shapes import Shape, serve_shape
from tests.helpers.session import Servers


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Yield a function that starts the demo in the test's own folder, with the given variables."""
    with ExitStack() as cleanup:

        def start(workers: int = 1, module: str = "example_app", **env: str) -> Demo:
            demo = Demo(tmp_path, workers, module, **env)
            cleanup.callback(demo.close)
            return demo

        yield start


@pytest.fixture
def start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Yield a function that runs `python -m example_app` in this process and returns its exit code.

    For starts that fail, so that not each of them needs a process. In a thread, since the demo creates an event loop.
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
    """Forget imported modules of the example, since it reads its settings when it is imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_app"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
async def example_app(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """Yield the started example, imported again for this test, on an empty database.

    Hashes of keys and passwords are cheap here; in `start_demo` they cost what they cost users.
    """
    monkeypatch.setattr(argon2, "PasswordHasher", CheapHasher)
    app: FastAPI = import_cheaply("example_app.app", database_url, tmp_path, monkeypatch).app
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def open_shape(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractAsyncContextManager[Shape]]:
    """Return a function that serves one of the shapes, imported again for this test, on an empty database."""

    sqlite_url = servers.fresh_sqlite_url(tmp_path / "keyauth.db")  # here, since it runs an event loop of its own

    def open_it(name: str, database_url: str = sqlite_url) -> AbstractAsyncContextManager[Shape]:
        return serve_shape(import_cheaply(f"example_app.shapes.{name}", database_url, tmp_path, monkeypatch))

    return open_it


def import_cheaply(name: str, database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a module of the example again, with that database and hashes that cost nothing."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KEYAUTH_DATABASE_URL", database_url)
    monkeypatch.setenv("KEYAUTH_ARGON2_TIME_COST", "1")
    monkeypatch.setenv("KEYAUTH_ARGON2_MEMORY_KIB", "8")
    monkeypatch.setenv("KEYAUTH_ARGON2_PARALLELISM", "1")
    forget_example_app(monkeypatch)
    return importlib.import_module(name)
