"""Fixtures that every test may use: a stack of real servers, a KeyAuth on it, clients, and workers.

| fixture | gives |
| --- | --- |
| `stack` | one of three combinations of database and limiter, empty; `.settings` are arguments of KeyAuthSettings |
| `make_auth(**settings)` | a KeyAuth on `stack`, not started, with hashing that costs nothing |
| `make_client(app, address=...)` | an httpx client that calls the app in this process, from that address |
| `database_url`, `redis_server_url` | one server alone, for tests that need no more |
| `start_valkey()`, `start_redis6()`, `start_postgres()` | a server of the test's own, to kill, freeze and restart |
| `start_workers("module:attr", workers=4, env={})` | a real uvicorn with several processes |
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from tests.helpers.empty_environment import skip_empty_environments
from tests.helpers.lazy_routes import make_routes_lazy
from tests.helpers.servers import Server
from tests.helpers.session import Kind, Servers
from tests.helpers.shared_commands import share_commands
from tests.helpers.shared_statements import share_statements
from tests.helpers.shared_tls import share_tls
from tests.helpers.thorough import IS_THOROUGH, begin_with_long, scope_of, thin_out
from tests.helpers.workers import Workers

if TYPE_CHECKING:
    from fastapi_keyauth import KeyAuth

VERSIONS = pytest.StashKey[dict[str, str]]()

STACKS: dict[str, tuple[Literal["sqlite", "postgres"], Literal["memory", "valkey", "redis6"]]] = {
    "sqlite-memory": ("sqlite", "memory"),
    "postgres-valkey": ("postgres", "valkey"),
    "sqlite-redis6": ("sqlite", "redis6"),
}
CLUSTER_STACK = "sqlite-cluster"
"""Option for the few modules that need it."""


@dataclass(frozen=True)
class Stack:
    """Stores of one test's keys and counters."""

    database: Literal["sqlite", "postgres"]
    limiter: Literal["memory", "valkey", "redis6", "cluster"]
    settings: dict[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    """Remove KEYAUTH_* variables from the environment: they would become settings of every KeyAuth in the tests."""
    config.stash[VERSIONS] = {}
    config.addinivalue_line("markers", "fuzz: takes random input; `make fuzz` runs these alone, and for longer")
    for name in [name for name in os.environ if name.startswith("KEYAUTH_")]:
        if not name.startswith("KEYAUTH_TEST_"):
            del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop repetitions and put the rest in order; see `thorough.py`."""
    thin_out(config, items)
    begin_with_long(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`: let one process run all browser tests."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # xdist has no annotations

    class ByScope(LoadFileScheduling):  # type: ignore[misc]  # its base is not annotated
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(super()._split_scope(nodeid))

    return ByScope(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import and collect without garbage collection, which finds next to nothing: all of it is kept."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Exclude startup objects from garbage collection, which otherwise takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With pytest-xdist: collect the server versions that a worker reported."""
    node.config.stash[VERSIONS].update(getattr(node, "workeroutput", {}).get("server_versions", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the servers that the tests used, with the versions that the servers reported."""
    for name, version in sorted(config.stash[VERSIONS].items()):
        terminalreporter.write_line(f"server {name}: {version}")


@pytest.fixture(scope="session", autouse=True)
def _shortcuts() -> Iterator[None]:
    """Spare each test what no test is about, unless the run is thorough; each shortcut has a module in `helpers`."""
    with pytest.MonkeyPatch.context() as patch:
        if not IS_THOROUGH:
            make_routes_lazy(patch)
            share_statements(patch)
            skip_empty_environments(patch)
            share_tls(patch)
            share_commands(patch)
        yield


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    """Yield the servers of this session, started on demand and all ended with it, after Ctrl-C too."""
    farm = Servers()
    pytestconfig.stash[VERSIONS] = farm.versions
    if hasattr(pytestconfig, "workeroutput"):  # A pytest-xdist worker reports to its controller.
        pytestconfig.workeroutput["server_versions"] = farm.versions
    try:
        yield farm
    finally:
        farm.close()


@pytest.fixture(params=list(STACKS))
def stack(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """Yield an empty database and an empty limiter for this test."""
    yield from open_stack(request.param, servers, tmp_path)


def open_stack(name: str, servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """Yield the stack of that name while the iterator is open."""
    with ExitStack() as cleanup:
        if name == CLUSTER_STACK:
            database_url = _fresh_database_url("sqlite", servers, tmp_path, cleanup)
            yield Stack("sqlite", "cluster", {"database_url": database_url, "redis_url": servers.cluster().url})
            return
        database, limiter = STACKS[name]
        database_url = _fresh_database_url(database, servers, tmp_path, cleanup, has_tables=True)
        redis_url = None if limiter == "memory" else servers.fresh_redis_url(limiter)
        yield Stack(database, limiter, {"database_url": database_url, "redis_url": redis_url})


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[str]:
    """Yield an empty database, as `KeyAuthSettings.database_url`."""
    with ExitStack() as cleanup:
        yield _fresh_database_url(request.param, servers, tmp_path, cleanup)


@pytest.fixture(params=["valkey", "redis6"])
def redis_server_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Return an empty Valkey or Redis, as `KeyAuthSettings.redis_url`."""
    return servers.fresh_redis_url(request.param)


@pytest.fixture
def make_auth(stack: Stack) -> Callable[..., KeyAuth]:
    """Return a factory of KeyAuth on `stack`; start each with `async with auth:` or by the app's lifespan."""

    def make(*, session_resolver: Any = None, owners_of: Any = None, clock: Any = None, **overrides: Any) -> KeyAuth:
        from fastapi_keyauth import KeyAuth, KeyAuthSettings

        cheap_hashing = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "argon2_parallelism": 1}
        patience = {"redis_timeout_s": 10}  # Load on the machine must not count as an outage.
        settings = KeyAuthSettings(_env_file=None, **{**stack.settings, **cheap_hashing, **patience, **overrides})
        collaborators = {"session_resolver": session_resolver, "owners_of": owners_of, "clock": clock}
        return KeyAuth(settings, **{name: value for name, value in collaborators.items() if value is not None})

    return make


class YieldingTransport(httpx.ASGITransport):
    """A transport that yields to other tasks before each request, as a socket would; otherwise they might starve."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return await super().handle_async_request(request)


@pytest.fixture
async def make_client() -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Yield a factory of clients that call an app in this process from a chosen address; None means no address."""
    async with AsyncExitStack() as cleanup:

        def make(app: Any, address: str | None = "203.0.113.7", **options: Any) -> httpx.AsyncClient:
            peer: Any = None if address is None else (address, 50_000)
            transport = YieldingTransport(app=app, client=peer, raise_app_exceptions=False)
            client = httpx.AsyncClient(**{"transport": transport, "base_url": "http://testserver", **options})
            cleanup.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def start_valkey(servers: Servers) -> Iterator[Callable[..., Server]]:
    """Yield a function that starts a Valkey for this test; its arguments are command-line options."""
    yield from _starter(servers, "valkey")


@pytest.fixture
def start_redis6(servers: Servers) -> Iterator[Callable[..., Server]]:
    """Yield a function that starts a Redis 6.2 for this test; its arguments are command-line options."""
    yield from _starter(servers, "redis6")


@pytest.fixture
def start_postgres(servers: Servers) -> Iterator[Callable[..., Server]]:
    """Yield a function that starts a PostgreSQL for this test; its URL names an empty database."""
    yield from _starter(servers, "postgres")


@pytest.fixture
def start_workers(tmp_path: Path) -> Iterator[Callable[..., Workers]]:
    """Yield a function that starts uvicorn with several workers and returns once all of them respond."""
    with ExitStack() as cleanup:

        def start(app: str, workers: int = 4, env: dict[str, str] | None = None, *options: str) -> Workers:
            folder = tmp_path / f"uvicorn-{len(started)}"
            group = Workers(app, folder, workers, env or {}, options)
            cleanup.callback(group.close)
            started.append(group)
            return group

        started: list[Workers] = []
        yield start


def _starter(servers: Servers, kind: Kind) -> Iterator[Callable[..., Server]]:
    with ExitStack() as cleanup:

        def start(*options: str) -> Server:
            server = servers.start(kind, *options)
            cleanup.callback(server.close)
            return server

        yield start


def _fresh_database_url(
    database: str, servers: Servers, folder: Path, cleanup: ExitStack, *, has_tables: bool = False
) -> str:
    if database == "postgres":
        return cleanup.enter_context(servers.fresh_postgres_url(has_tables=has_tables))
    if has_tables:
        return servers.fresh_sqlite_url(folder / "keyauth.db")
    return f"sqlite+aiosqlite:///{folder / 'keyauth.db'}"
