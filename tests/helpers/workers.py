"""A real uvicorn with several worker processes, for guarantees that hold on any worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.helpers.processes import comes_up, is_alive, kill_tree, launch, wait_until

START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 40.0
ROOT = Path(__file__).resolve().parents[2]
SOURCES = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
"""Import path of the workers: the package beside these tests, regardless of an installed one."""


class Workers:
    """`uvicorn app --workers N`, ready to answer. `process` is the supervisor, or the server itself if N is 1.

    Workers that are to be killed must not be forked (`is_preloaded`): their parent process keeps their pipes
    open, and the supervisor notices their end only at its health check.
    """

    def __init__(
        self,
        app: str,
        folder: Path,
        workers: int,
        env: Mapping[str, str],
        options: tuple[str, ...],
        *,
        is_preloaded: bool = True,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._log = folder / "uvicorn.log"
        runner = ["tests.helpers.preloaded", "uvicorn"] if is_preloaded and workers > 1 else ["uvicorn"]
        self.process = self._start([*runner, app], folder, workers, env, options)
        try:
            self.base_url = self._wait_until_ready(workers)
        except BaseException:
            kill_tree(self.process)
            raise

    def _start(
        self, module: list[str], folder: Path, workers: int, env: Mapping[str, str], options: tuple[str, ...]
    ) -> subprocess.Popen[bytes]:
        # The caller's own settings are excluded, and the folder is empty: no .env, no demo database.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYAUTH_")}
        paths = [*filter(None, [env.get("PYTHONPATH")]), SOURCES]
        # Uvicorn trusts X-Forwarded-For from 127.0.0.1 by default; here fastapi-keyauth decides which proxies to trust.
        flags = "--host 127.0.0.1 --port 0 --no-proxy-headers --lifespan on --no-use-colors --workers"
        return launch(
            [sys.executable, "-m", *module, *flags.split(), str(workers), *options],
            self._log,
            death_signal=signal.SIGTERM,
            cwd=folder,
            env={**inherited, "PYTHONUNBUFFERED": "1", **env, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def _wait_until_ready(self, workers: int) -> str:
        """Return the URL once all workers are ready.

        Port 0 lets the system choose an unused port; the log then names it.
        """
        has_come_up = comes_up(
            self.process,
            lambda: "startup failed" in self.log() or self._address(workers) is not None,
            timeout_s=START_DEADLINE_S,
        )
        address = self._address(workers)
        if not has_come_up or address is None:
            raise RuntimeError(f"uvicorn does not start:\n{self.log()}")
        return address

    def _address(self, workers: int) -> str | None:
        """Return the listening address, once all workers have started."""
        log = self.log()
        address = re.search(r"Uvicorn running on (http://127\.0\.0\.1:\d+)", log)
        return address[1] if address and log.count("Application startup complete.") >= workers else None

    def log(self) -> str:
        """Return the complete output of the supervisor and its workers."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Send SIGTERM, which runs each worker's lifespan shutdown, and SIGKILL to processes that do not end."""
        if self.process.poll() is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_DEADLINE_S)
            wait_until(lambda: not any(is_alive(child) for child in family), timeout_s=STOP_DEADLINE_S)
        except (subprocess.TimeoutExpired, TimeoutError):
            kill_tree(self.process)

    def close(self) -> None:
        """Run `stop`, and then kill all remaining processes of the group."""
        self.stop()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
