"""`python -m tests.helpers.preloaded MODULE ...`: as `python -m MODULE ...`, with workers of uvicorn that start sooner.

Each of uvicorn's workers imports everything anew, a second of a processor for each. Here one process imports the
libraries and every worker is forked from it, with what makes it a worker of its own still to do: the application, its
`KeyAuth`, the event loop and all connections are made after the fork.
"""

from __future__ import annotations

import multiprocessing
import runpy
import sys
from contextlib import suppress

from uvicorn import _subprocess
from uvicorn.supervisors.multiprocess import Process

LIBRARIES = [
    "fastapi_keyauth",
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
    """As uvicorn's own. Of a worker that ends by itself, as after Ctrl-C, uvicorn learns a moment after it is gone."""
    with suppress(ProcessLookupError):
        _terminate(worker)


def main() -> None:
    """Run the module that is named."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(LIBRARIES)
    _subprocess.spawn = forking  # type: ignore[assignment]  # a context that makes processes, as the one of uvicorn's
    Process.terminate = terminate  # type: ignore[method-assign, assignment]  # here the parent of the workers is another process
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
