"""`python -m tests.helpers.preloaded MODULE ...`: `python -m MODULE ...` with faster starting uvicorn workers.

Each uvicorn worker normally imports everything again, which costs a CPU second. Here one process imports the
libraries and every worker is forked from it. The parts that differ per worker come later: the application, its
`KeyAuth`, the event loop and all connections are created after the fork.
"""

from __future__ import annotations

import multiprocessing
import runpy
import sys
from contextlib import suppress

from uvicorn import _subprocess
from uvicorn.supervisors.multiprocess import Process

LIBRARIES = [
    "fastapi_keyauth.keyauth",  # the package itself imports it only when it is first used
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvicorn.loops.uvloop",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
]


_terminate = Process.terminate


def terminate(worker: Process) -> None:
    """Terminate as uvicorn does. If a worker ends by itself, as after Ctrl-C, uvicorn notices a moment later."""
    with suppress(ProcessLookupError):
        _terminate(worker)


def main() -> None:
    """Run the named module."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(LIBRARIES)
    _subprocess.spawn = forking  # type: ignore[assignment]  # a context that creates processes, like uvicorn's
    Process.terminate = terminate  # type: ignore[method-assign, assignment]  # here the parent of the workers is another process
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
