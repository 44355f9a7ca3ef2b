"""A process of the tests whose port was taken starts on another one. One that fails otherwise is not started again."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.processes import kill_tree, launch, start_on_free_port

SERVER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
time.sleep(60)  # until it is killed
"""
FAILURE = "raise SystemExit('a mistake')"


class Starts:
    def __init__(self, script: str, folder: Path) -> None:
        self.log = folder / "log"
        self.ports: list[int] = []
        self._command = [sys.executable, "-c", script]

    def start(self, port: int) -> subprocess.Popen[bytes]:
        self.ports.append(port)
        return launch([*self._command, str(port)], self.log, death_signal=signal.SIGKILL, cwd=self.log.parent)

    def is_up(self, _: int) -> bool:
        return "up" in self.log.read_text()


def test_it_starts_on_another_port_if_this_one_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, free = Starts(SERVER, tmp_path), processes.free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        offered = iter([taken, free])
        monkeypatch.setattr(processes, "free_port", lambda: next(offered))
        process, port = start_on_free_port(starts.start, starts.is_up, starts.log, timeout_s=60)
    kill_tree(process)
    assert starts.ports == [taken, free]
    assert port == free


def test_another_failure_is_reported_with_its_log(tmp_path: Path) -> None:
    starts = Starts(FAILURE, tmp_path)
    with pytest.raises(RuntimeError, match="a mistake"):
        start_on_free_port(starts.start, starts.is_up, starts.log, timeout_s=60)
    assert len(starts.ports) == 1
