"""Child processes of the tests: started out of reach of Ctrl-C, and always ended with the tests."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

POLL_S = 0.005
PORT_ATTEMPTS = 5
"""Another process may bind the port between the check that it is free and the start."""
_TAKEN = re.compile(r"Port \d+ is not available|address already in use", re.IGNORECASE)

# Becomes the server itself, keeping its process id. Linux then signals it when its parent dies, even by SIGKILL. Done
# here and not in a preexec_fn, which may deadlock in a process with threads, and after setuid, which undoes the prctl.
_LAUNCHER = """
import ctypes, os, sys
parent, death_signal, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death_signal)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the tests have ended already")
os.execv(sys.argv[5], sys.argv[5:])
"""


def launch(
    command: list[str],
    log: Path,
    *,
    death_signal: signal.Signals,
    user: pwd.struct_passwd | None = None,
    cwd: Path,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, out of reach of the terminal's Ctrl-C; its output goes to `log`.

    Call it from a long-lived thread: Linux treats the end of that thread as the parent's death.
    """
    uid, gid = (user.pw_uid, user.pw_gid) if user else (-1, -1)
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, (os.getpid(), int(death_signal), uid, gid))]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )


def signal_tree(process: subprocess.Popen[bytes], number: signal.Signals) -> list[psutil.Process]:
    """Signal a process and all its descendants (PostgreSQL's children leave its group, so killpg misses them)."""
    try:
        parent = psutil.Process(process.pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for member in tree:
        try:
            member.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    return tree


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all its descendants immediately, and wait until they are gone."""
    tree = signal_tree(process, signal.SIGKILL)
    process.wait(timeout=40)
    wait_until(lambda: not any(is_alive(member) for member in tree), timeout_s=40)


def is_alive(process: psutil.Process) -> bool:
    """Return whether it runs. A zombie does not: a container without an init never collects orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> None:
    """Poll until the condition holds. Raise TimeoutError if it does not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {timeout_s} s")
        time.sleep(POLL_S)


def stay_within_the_hour(needed_s: float = 30.0) -> None:
    """Wait for the next clock hour if this one ends within ``needed_s``.

    For tests that count many units against the real clock: a sliding window frees some units when the hour changes.
    """
    wait_until(lambda: time.time() % 3600 < 3600 - needed_s, timeout_s=needed_s + 5)


def comes_up(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait until a started process is ready. Return False if it ends instead, or takes longer."""
    with suppress(TimeoutError):
        wait_until(lambda: process.poll() is not None or is_ready(), timeout_s=timeout_s)
    return process.poll() is None and is_ready()


def free_port() -> int:
    """Return a free port below the range that outgoing connections use.

    From that range a client that retries while its server is down could take the port, or even connect to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def start_on_free_port(
    start: Callable[[int], subprocess.Popen[bytes]], is_ready: Callable[[int], bool], log: Path, *, timeout_s: float
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process on a free port, and again on another one only if its log says that this port was taken.

    Raises:
        RuntimeError: If it ends for another reason, or is not ready within `timeout_s`. It has the text of `log`.
    """
    for _ in range(PORT_ATTEMPTS):
        log.write_bytes(b"")
        port = free_port()
        process = start(port)
        if comes_up(process, partial(is_ready, port), timeout_s=timeout_s):
            return process, port
        kill_tree(process)
        if not _TAKEN.search(log.read_text(errors="replace")):
            break
    raise RuntimeError(f"it does not start:\n{log.read_text(errors='replace')}")
