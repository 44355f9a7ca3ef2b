"""Workers of one outage policy, and one line to each of them, to check that each has recovered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from reliability.ledger import Credential, Ledger
from reliability.line import Line
from reliability.load import ask_with
from reliability.manager import Manager
from tests.helpers.processes import is_alive
from tests.helpers.workers import Workers

PROBE_S = 0.02
START_POLL_S = 0.1
RECOVER_DEADLINE_S = 120.0
"""Limit for a replacement worker, which imports everything, perhaps on a busy machine."""
_WAVE = 12

SETTINGS = {
    "KEYAUTH_REDIS_TIMEOUT_S": "0.5",  # The default.
    "KEYAUTH_DEFAULT_HOURLY_LIMIT": "none",
    "KEYAUTH_MAX_KEYS_PER_OWNER": "1000000",
    "KEYAUTH_TRUSTED_PROXIES": "127.0.0.1/32",  # Each client of the load has its own address.
    "KEYAUTH_ARGON2_MEMORY_KIB": "8",  # The cost of hashing is measured elsewhere.
    "KEYAUTH_ARGON2_TIME_COST": "1",
}


class Site:
    """A group of uvicorn workers, and lines to them.

    Args:
        policy: Outage policy, ``local`` or ``deny``.
        count: Number of workers.
        folder: Their working and log directory.
        env: URLs of the servers.
        ledger: Receives every response.
    """

    def __init__(self, policy: str, count: int, folder: Path, env: Mapping[str, str], ledger: Ledger) -> None:
        self.policy = policy
        self.count = count
        self.folder = folder
        self.ledger = ledger
        settings = {**SETTINGS, **env, "KEYAUTH_ON_LIMITER_OUTAGE": policy}
        # The supervisor kills a worker that does not respond in this many seconds. On a busy machine, startup is slow.
        options = ("--no-access-log", "--timeout-keep-alive", "600", "--timeout-worker-healthcheck", "60")
        self.group = Workers("reliability.app:app", folder, count, settings, options, is_preloaded=False)
        self._lines: dict[int, Line] = {}
        self._probes: dict[int, Credential] = {}

    def workers(self) -> set[int]:
        """Return the process ids of the workers that have started and still run."""
        started = {int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.group.log())}
        return {pid for pid in started if psutil.pid_exists(pid) and is_alive(psutil.Process(pid))}

    async def reach_every_worker(self) -> None:
        """Open a line to each of ``count`` workers. The worker that accepts a new connection is random."""
        async with asyncio.timeout(RECOVER_DEADLINE_S):
            while True:
                living = self.workers()
                for pid in [pid for pid, line in self._lines.items() if pid not in living or line.worker != pid]:
                    await self._lines.pop(pid).close()
                if len(self._lines) >= self.count:
                    return
                if len(living) < self.count:
                    await asyncio.sleep(START_POLL_S)
                    continue
                wave = [Line(self.group.base_url, self.ledger, "192.0.2.1") for _ in range(_WAVE)]
                answers = await asyncio.gather(*(line.ask("GET", "/open") for line in wave))
                for line, answer in zip(wave, answers, strict=True):
                    if answer is not None and answer.worker not in self._lines:
                        self._lines[answer.worker] = line
                    else:
                        await line.close()
                await asyncio.sleep(PROBE_S)

    async def ask_every_worker(self, credential: Credential) -> None:
        """Send one request with a key to each worker and check the responses."""
        await asyncio.gather(*(ask_with(line, self.ledger, credential) for line in self._lines.values()))

    async def recovered_at(self, manager: Manager, session: str) -> float:
        """Wait until every worker makes changes that hold immediately, and admits requests.

        Return when the last one did.
        """
        await self.reach_every_worker()
        while len(self._probes) < self.count:
            made = await manager.make()
            if made is not None:
                self.ledger.live.remove(made)  # Used only for this check.
                self._probes[len(self._probes)] = made
        lines = zip(self._lines.values(), self._probes.values(), strict=True)
        return max(await asyncio.gather(*(self._is_well_at(line, probe, session) for line, probe in lines)))

    async def _is_well_at(self, line: Line, probe: Credential, session: str) -> float:
        deadline = time.monotonic() + RECOVER_DEADLINE_S
        body: dict[str, Any] = {"metadata": {}}
        while time.monotonic() < deadline:
            body["metadata"]["at"] = time.monotonic()
            changed = await line.ask("PATCH", f"/api-keys/{probe.key.id}", session=session, body=body)
            asked = await line.ask("GET", "/models", token=probe.token)
            if asked is not None:
                self.ledger.judge(asked, probe)
                if changed is not None and (changed.status, asked.status) == (200, 200):
                    return asked.ended_at
            await asyncio.sleep(PROBE_S)
        return float("inf")

    async def close(self) -> None:
        """Stop the workers, each with its shutdown."""
        for line in self._lines.values():
            await line.close()
        self._lines.clear()
        await asyncio.to_thread(self.group.stop)
