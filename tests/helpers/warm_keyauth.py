"""A `keyauth` for shells that does not import the libraries again.

Importing them costs each command of a page a CPU second or two. Here one process imports them, and each command is
forked from it, with its own environment, folder, input and output. The settings, the application
and all connections come after the fork. `make test THOROUGH=1` runs the installed `keyauth`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.helpers.preloaded import LIBRARIES
from tests.helpers.processes import comes_up, kill_tree, launch

START_DEADLINE_S = 120.0
ROOT = Path(__file__).resolve().parents[2]
NOUNS = ("app", "audit", "blocks", "checks", "db", "keys", "owners", "runner", "sessions", "tables", "usage")

_COMMAND = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(line, [len(request).to_bytes(8, "big")], [0, 1, 2])
    line.sendall(request)
    code = line.recv(1)
sys.exit(code[0] if code else 1)
"""


@cache
def warm_keyauth() -> Path:
    """Return a folder for `PATH` that has the command. The process that runs it ends with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ka-"))  # The address of a Unix socket may have 100 characters.
    address = folder / "socket"
    command = folder / "keyauth"
    command.write_text(_COMMAND.format(python=sys.executable, address=str(address)))
    command.chmod(0o700)
    process = launch(
        [sys.executable, "-m", __name__, str(address)],
        folder / "log",
        death_signal=signal.SIGKILL,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(kill_tree, process)
    if not comes_up(process, address.exists, timeout_s=START_DEADLINE_S):
        raise RuntimeError((folder / "log").read_text())
    return folder


def serve(address: str) -> None:
    """Run each command that is sent, one after another."""
    for name in [*LIBRARIES, *(f"fastapi_keyauth.cli.{noun}" for noun in NOUNS)]:
        importlib.import_module(name)
    # It gets its name last: clients may connect as soon as they see it.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        Path(f"{address}.new").rename(address)
        while True:
            line, _ = listener.accept()
            with line, suppress(BrokenPipeError):  # A test that is over waits for no exit code.
                line.sendall(bytes([_run(line)]))


def _run(line: socket.socket) -> int:
    size, descriptors, _, _ = socket.recv_fds(line, 8, 3)
    with line.makefile("rb") as stream:
        arguments, folder, environment = json.loads(stream.read(int.from_bytes(size, "big")))
    child = os.fork()
    if child == 0:
        os._exit(_become(arguments, folder, environment, descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def _become(arguments: list[str], folder: str, environment: dict[str, str], descriptors: list[int]) -> int:
    """Run the command as the installed one would, and return its exit code."""
    from fastapi_keyauth.cli import main

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["keyauth", *arguments]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
