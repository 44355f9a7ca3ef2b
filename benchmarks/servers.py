"""The servers under test: one uvicorn worker each, on a core of its own, in the subject's environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import redis

from benchmarks import load
from benchmarks.load import LOAD_CPU, LoadError
from benchmarks.subjects import Subject
from tests.helpers.processes import free_port, kill_tree, launch

SERVER_CPU = 0
APPS = Path(__file__).with_name("apps")
PATH = "/item"
_START_S = 60.0
_IDLE_S = 0.02  # CPU time within a fifth of a second.
_OPTIONS = "--host 127.0.0.1 --loop uvloop --http httptools --no-access-log --log-level warning --no-proxy-headers"


def taskset() -> str:
    """Return the path of taskset. Raise LoadError if it is missing."""
    found = shutil.which("taskset")
    if found is None:
        raise LoadError("The benchmark needs taskset (util-linux), to give the server a core of its own.")
    return found


class AppServer:
    """A running subject. ``headers`` holds the headers that a client sends."""

    def __init__(
        self, subject: Subject, python: Path, folder: Path, redis_url: str, extra: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True)
        self.subject = subject
        self.log = folder / "log"
        told = folder / "headers.json"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._redis = redis.Redis.from_url(redis_url)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        env = {
            **kept,
            "BENCH_REDIS_URL": redis_url,
            "BENCH_DIR": str(folder),
            "BENCH_HEADERS": str(told),
        }
        command = [taskset(), "-c", str(SERVER_CPU), str(python), "-m", "uvicorn", "--app-dir", str(APPS)]
        self.process: subprocess.Popen[bytes] = launch(
            [*command, f"{subject.app}:app", "--port", str(port), *_OPTIONS.split()],
            self.log,
            death_signal=signal.SIGTERM,
            cwd=folder,
            env={**env, **subject.variables, **(extra or {})},
        )
        try:
            self.headers = self._wait(told)
            self._requests = folder / "requests"
            self._sent = 0
            load.write_requests(self._requests, self.headers)
            self.check()
        except BaseException:
            self.close()
            raise

    def _wait(self, told: Path) -> Sequence[Mapping[str, str]]:
        deadline = time.monotonic() + _START_S
        while not told.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LoadError(f"{self.subject.name} does not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)
        headers = json.loads(told.read_text())
        if isinstance(headers, dict):
            headers = headers[self.subject.credentials]
        while True:  # The file is written just before the server listens.
            try:
                httpx.get(f"{self.url}/openapi.json", timeout=5)
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return list(headers)

    def load(self, connections: int, duration_s: int) -> load.Sample:
        """Load the server for a while. Raise LoadError if a response differs from the expected one."""
        pid = self.process.pid
        calls = self._count_calls()
        sample = load.run(self.url, PATH, self._requests, self._sent, connections, duration_s, pid)
        sample = replace(sample, redis_calls=self._count_calls() - calls)
        self._sent = (self._sent + sample.requests) % len(self.headers)
        expected = sample.requests if self.subject.status >= 400 else 0
        if sample.refused != expected:
            raise LoadError(f"{self.subject.name}: {sample.refused} of {sample.requests} refused")
        return sample

    def _count_calls(self) -> int:
        stats: Mapping[str, Mapping[str, int]] = self._redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))

    def settle(self) -> None:
        """Wait until the server is idle: some continue hashing after the load has ended."""
        server = psutil.Process(self.process.pid)
        before, deadline = -1.0, time.monotonic() + _START_S
        while time.monotonic() < deadline:
            used = sum(server.cpu_times()[:2])
            if used - before < _IDLE_S:
                return
            before = used
            time.sleep(0.2)

    def check(self) -> None:
        """Check that a request gets the expected response. Raise LoadError if it does not."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            if self.subject.status == 429:
                for _ in range(20):
                    client.get(PATH, headers={"api-key": "no key at all"})
            answer = client.get(PATH, headers=self.headers[0])
        if answer.status_code != self.subject.status or "redis unavailable" in self.log.read_text(errors="replace"):
            raise LoadError(f"{self.subject.name} answers {answer.status_code}: {answer.text[:300]}")

    def close(self) -> None:
        """Stop the server."""
        self._redis.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                kill_tree(self.process)


def pin_to_load_core(pid: int) -> None:
    """Move all threads of a running server (Redis) to the core that wrk uses."""
    command = [taskset(), "-acp", str(LOAD_CPU), str(pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
