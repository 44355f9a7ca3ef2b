"""Samples during a half of the soak: memory, open files, connections, and the delay of this process itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import redis

EVERY_S = 5.0
LAG_EVERY_S = 0.05
MIB = 2**20


@dataclass
class Watch:
    """Samples of the workers that live through the whole half.

    Attributes:
        pids: Their process ids.
        port: Port on which they listen.
        memory_mib: Resident memory in each sample, by process id.
        files: Open file descriptors by process id, without those of connections that clients hold open.
        lag_s: Maximum wake-up delay of this process, the client. Its responses seem later by that much.
    """

    pids: list[int]
    port: int
    memory_mib: dict[int, list[float]] = field(default_factory=dict)
    files: dict[int, list[int]] = field(default_factory=dict)
    lag_s: float = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take samples every ``EVERY_S`` while the block runs."""
        tasks = [asyncio.create_task(self._look_on_and_on()), asyncio.create_task(self._feel_lag())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def look(self) -> None:
        """Sample each process that is alive."""
        for pid in self.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                self.memory_mib.setdefault(pid, []).append(round(process.memory_info().rss / MIB, 1))
                inbound = sum(found.laddr.port == self.port for found in process.net_connections("tcp"))
                self.files.setdefault(pid, []).append(process.num_fds() - inbound)

    async def _look_on_and_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self.look()

    async def _feel_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.lag_s = max(self.lag_s, time.monotonic() - before - LAG_EVERY_S)


def redis_connections(url: str) -> int:
    """Return the number of clients of a Redis, without this one."""
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        return len(client.client_list()) - 1


def at_steps(values: list[float], steps: int = 5) -> list[float]:
    """Return evenly spaced values, including the first and the last."""
    last = len(values) - 1
    return [values[round(last * step / (steps - 1))] for step in range(steps)] if values else []
