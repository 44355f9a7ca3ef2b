"""How much, how fast, for how long: in full, and short enough for a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Times in seconds.

    Attributes:
        clients: connections that ask without end.
        pause_s: what each waits between its requests, on average.
        keys: made before anything else.
        cap: of the keys that have one.
        calm_s: from and to, between two faults of the soak.
        during_s: from and to, how long a fault lasts.
        pending_s: what is waited at the end for changes that were to hold within some seconds; the longest
            ``holds_within_s`` is 10.
    """

    clients: int = 8
    pause_s: float = 0.04  # some 150 requests a second: what is looked at is what breaks, not how fast it is
    keys: int = 60
    cap: int = 30
    calm_s: tuple[float, float] = (0.5, 2.5)
    during_s: tuple[float, float] = (0.4, 2.0)
    pending_s: float = 10.5


FULL = Pace()
SHORT = Pace(clients=4, pause_s=0.06, keys=8, cap=20, calm_s=(0.0, 0.3), during_s=(0.5, 0.7), pending_s=0.0)
