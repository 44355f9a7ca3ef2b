"""A process that has collected a target's tests and keeps a server for them, and is forked for each mutant.

To import the package, collect the tests and start a server takes ten times as long as the test that kills a mutant
of a Lua script. The scripts are read when a limiter is created, so a mutant may be written after all that.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import redis

CRASHED = 70
_CHECK_TIMEOUT_S = 1.0
_END = b"\n"
"""A request to end. Others are lists."""


class Warm:
    """The process, and the run that it was last asked for.

    Args:
        become: Called in the new process. Runs pytest with the plugin that it is given, and does not return.
    """

    def __init__(self, become: Callable[[object], None]) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self._text = b""
        self._run = 0
        self._process = os.fork()
        if self._process == 0:
            os.close(self._requests)
            os.close(self._answers)
            become(_Forks(requests, answers))
        os.close(requests)
        os.close(answers)

    def start(self, first: Sequence[str]) -> None:
        """Fork it; the fork runs these tests before the others."""
        self._text, self._run = b"", 0
        os.write(self._requests, json.dumps(list(first)).encode() + b"\n")

    def poll(self) -> int | None:
        """Return the exit status of pytest once the fork has ended. None while it is running."""
        while select.select([self._answers], [], [], 0)[0]:
            read = os.read(self._answers, 1000)
            if not read:
                return CRASHED
            self._text += read
        lines = self._text.split(b"\n")
        self._run = int(lines[0]) if len(lines) > 1 else 0
        return int(lines[1]) if len(lines) > 2 else None

    def end_run(self) -> None:
        """End the fork, and wait for its end."""
        while self.poll() is None:
            if self._run:
                with suppress(ProcessLookupError):
                    os.killpg(self._run, signal.SIGKILL)
            select.select([self._answers], [], [], 0.1)

    def close(self) -> None:
        """End the process, and with it the server.

        Closing the pipe is not enough: processes that were forked later have it open, too.
        """
        with suppress(BrokenPipeError):
            os.write(self._requests, _END)
        os.close(self._requests)
        os.close(self._answers)
        os.waitpid(self._process, 0)


class _Forks:
    """A plugin of pytest that forks, for each request, before the first test."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._kept: object = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Return in each fork. The process itself ends when it is told to, or when nobody can ask it any more."""
        from tests.helpers.session import Servers  # of the copy of the tree

        servers = Servers()
        server = servers.start("valkey")
        self._kept = servers, server  # a fork must not report that it leaves them open, nor close them
        os.environ["KEYAUTH_TEST_VALKEY_URL"] = server.url
        with os.fdopen(self._requests) as requests:
            for line in iter(requests.readline, _END.decode()):
                if not line:  # nobody can ask any more
                    break
                if not _is_usable(server.url):
                    server.restart()
                process = os.fork()
                if process == 0:
                    os.setsid()  # so that a run which hangs can be ended with all that it started
                    place = {name: number for number, name in enumerate(json.loads(line))}
                    session.items.sort(key=lambda item: place.get(item.nodeid, len(place)))
                    return
                os.write(self._answers, b"%d\n" % process)
                _, status = os.waitpid(process, 0)
                os.write(self._answers, b"%d\n" % os.waitstatus_to_exitcode(status))
        servers.close()
        os._exit(0)


def _is_usable(url: str) -> bool:
    """Return whether a server does what the last mutant did not keep it from: a script may run for ever."""
    try:
        with redis.Redis.from_url(url, socket_timeout=_CHECK_TIMEOUT_S) as client:
            client.flushall()
            return bool(client.config_get("maxmemory") == {"maxmemory": "0"})
    except redis.RedisError:
        return False
