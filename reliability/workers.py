"""Faults of a single worker: killed, or stopped cleanly; the supervisor starts a replacement."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass

from reliability.party import Party
from tests.helpers.waiting import until

KILLED, STOPPED = "a worker killed (SIGKILL)", "a worker stopped (SIGTERM)"
GONE_WITHIN_S = 30.0


@dataclass(frozen=True)
class Ended:
    """A worker that was ended.

    Attributes:
        pid: Its process id.
        at: When the signal was sent, on the monotonic clock.
        is_clean: Whether the signal was SIGTERM.
        begun: Number of requests that it reported to have begun; None if it could not report.
    """

    pid: int
    at: float
    is_clean: bool
    begun: int | None


async def end_worker(party: Party, pid: int, *, is_clean: bool) -> Ended:
    """Signal a worker and wait until its process has ended."""
    at = time.monotonic()
    os.kill(pid, signal.SIGTERM if is_clean else signal.SIGKILL)
    await until(lambda: pid not in party.site.workers(), GONE_WITHIN_S)
    left = party.site.folder / f"stopped-{pid}.json"
    if not (is_clean and left.exists()):
        return Ended(pid, at, is_clean, None)
    return Ended(pid, at, is_clean, json.loads(left.read_text())["begun"])


def unanswered(party: Party, ended: Ended) -> int:
    """Return how many requests accepted by a cleanly stopped worker got no response.

    All of them if it did not report.
    """
    if ended.begun is None:
        return party.ledger.answered_by[ended.pid]
    return ended.begun - party.ledger.answered_by[ended.pid]
