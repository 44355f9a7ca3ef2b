"""`python -m example_app` as a user starts it, and its output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.processes import kill_tree, launch, start_on_free_port

ROOT = Path(__file__).resolve().parent.parent.parent
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 40.0


class Demo:
    """The running demo. `url`, `page`, `key`, `tiny_key`, `email`, `password` and `script` come from its output."""

    def __init__(self, folder: Path, workers: int = 1, module: str = "example_app", **env: str) -> None:
        self._folder = folder
        self._log = folder / "demo.log"
        self._workers = workers
        self._module = module
        self._env = env
        self.process, self.port = start_on_free_port(
            self._start, lambda _: self._is_ready(), self._log, timeout_s=START_DEADLINE_S
        )
        try:
            self.url = self._printed(r"address +(\S+)")
            self.page = self._printed(r"key page +(\S+)")
            self.key = self._printed(r"key +(ka_\S+)")
            self.tiny_key = self._printed(r"tiny key +(ka_\S+)")
            self.email = self._printed(r"login +(\S+)")
            self.password = self._printed(r"login +\S+ +(\S+)")
            self.script = self._printed(r"(URL=[\s\S]*?)Stop the server")
        except BaseException:
            kill_tree(self.process)
            raise

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        options = ("--port", str(port), "--workers", str(self._workers))
        return launch(
            command(*options, module=self._module, is_preloaded=self._workers > 1),
            self._log,
            death_signal=signal.SIGTERM,
            cwd=self._folder,
            env=environment(**self._env),
        )

    def _is_ready(self) -> bool:
        # A single process says that its startup is complete before it listens.
        log = self.log()
        return "Uvicorn running on" in log and log.count("Application startup complete.") >= self._workers

    def _printed(self, pattern: str) -> str:
        found = re.search(rf"(?m)^ *{pattern}", self.log())
        assert found, f"no {pattern} in:\n{self.log()}"
        return found[1]

    def log(self) -> str:
        """Return its output so far."""
        return self._log.read_text(errors="replace")

    def connected_workers(self) -> set[int]:
        """Return the processes that hold a client's connection."""
        return {
            child.pid
            for child in psutil.Process(self.process.pid).children(recursive=True)
            for connection in child.net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == self.port
        }

    def press_ctrl_c(self) -> int:
        """Send SIGINT to all of its processes, as a terminal does. Return the exit code once all have ended."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(timeout=STOP_DEADLINE_S)
        _, alive = psutil.wait_procs(family, timeout=STOP_DEADLINE_S)
        assert not alive
        return code

    def close(self) -> None:
        """End its processes and delete its files."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                kill_tree(self.process)


def command(*options: str, module: str = "example_app", is_preloaded: bool = False) -> list[str]:
    """Return the command line of the demo, with workers that start faster by `tests.helpers.preloaded`."""
    return [sys.executable, "-m", *(["tests.helpers.preloaded"] if is_preloaded else []), module, *options]


def environment(**env: str) -> dict[str, str]:
    """Return the environment of the demo, without the caller's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYAUTH_")}
    return {**inherited, "PYTHONPATH": str(ROOT), **env}
