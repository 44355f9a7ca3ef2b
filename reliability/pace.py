"""Amounts, rates and durations: full values, and short ones for tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Amounts and durations of a run. Times in seconds.

    Attributes:
        clients: Number of connections that send requests continuously.
        pause_s: Average pause between the requests of a client.
        keys: Number of keys created at the start.
        cap: Hourly limit of the limited keys.
        calm_s: Range of the time between two faults of the soak.
        during_s: Range of the duration of a fault.
        pending_s: Wait at the end for changes that take effect within some seconds; the longest
            ``holds_within_s`` is 10.
    """

    clients: int = 8
    pause_s: float = 0.04  # About 150 requests per second: the run tests failures, not speed.
    keys: int = 60
    cap: int = 30
    calm_s: tuple[float, float] = (0.5, 2.5)
    during_s: tuple[float, float] = (0.4, 2.0)
    pending_s: float = 10.5


FULL = Pace()
SHORT = Pace(clients=4, pause_s=0.06, keys=8, cap=20, calm_s=(0.0, 0.3), during_s=(0.5, 0.7), pending_s=0.0)
