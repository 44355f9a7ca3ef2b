"""Generator of docs/explanation/scale.md: measured figures, multiplied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi_keyauth.limiter.leases.demand import MIN_RECENT

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation/scale.md"
_TEXT = Path(__file__).with_name("scale.md")
RATE = 1_000_000
KEYS = 100_000
LOAD = 0.6
LEASE_S = 0.1
RENEWED_AFTER_S = 0.09
"""A lease lasts 98 ms, and is renewed 3 ms and two durations of a call before its end."""
_STEPS = 5
"""Until the number of workers and the share of leased requests fit each other."""
BUSY_PER_S = MIN_RECENT / LEASE_S
"""Requests per second of a key that make it busy on a worker."""

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demand:
    """Redis calls per second.

    Attributes:
        leased: Share of the requests that a lease answers.
        single: Calls with one question.
        leases: Calls that return and grant leases.
    """

    leased: float
    single: float
    leases: float


def rates(*, is_skewed: bool) -> Sequence[float]:
    """Return the requests per second of each key, the busiest first."""
    if not is_skewed:
        return [RATE / KEYS] * KEYS
    total = sum(1 / rank for rank in range(1, KEYS + 1))
    return [RATE / total / rank for rank in range(1, KEYS + 1)]


def demand(of_keys: Sequence[float], workers: int, worker_per_s: float, *, is_routed: bool) -> Demand:
    """Return what reaches Redis if workers hold leases for the keys that are busy there."""
    leased = single = leases = 0.0
    for rate in of_keys:
        serving = min(workers, math.ceil(rate / (LOAD * worker_per_s))) if is_routed else workers
        if rate / serving >= BUSY_PER_S:
            leased += rate
            leases += serving / RENEWED_AFTER_S
        else:
            single += rate
    return Demand(leased / RATE, single, leases)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers that the requests need.

    Attributes:
        leased_us: CPU of a worker for a request that a lease answers.
        asked_us: CPU of a worker for a request for which Redis is asked.
    """

    leased_us: float
    asked_us: float

    def workers(self, leased: float) -> int:
        """Return the number of workers, one for each core, if leases answer that share of the requests."""
        return math.ceil(RATE * (leased * self.leased_us + (1 - leased) * self.asked_us) / 1e6 / LOAD)

    def demand(self, of_keys: Sequence[float], *, is_routed: bool) -> Demand:
        """Return what reaches Redis. The more leases answer, the fewer workers there are to share a key."""
        needed = Demand(0, RATE, 0)
        for _ in range(_STEPS):
            workers = self.workers(needed.leased)
            needed = demand(of_keys, workers, 1e6 / self.leased_us, is_routed=is_routed)
        return needed


def page(results: Results) -> str:
    """Return the page: the text of ``scale.md`` with the figures inserted."""
    seen = results["calls"]
    cpu = {row["name"]: row["cpu_us"] for row in results["ours"] if row["connections"] == 16}
    fleet = Fleet(leased_us=cpu["redis"], asked_us=cpu["turn"])
    places = {
        "figures": _table(
            ("figure", "measured"),
            [
                (
                    "CPU of a worker for a request with a leased key, 16 connections, FastAPI and uvicorn included",
                    f"{fleet.leased_us:.0f} us",
                ),
                (
                    "the same without a lease: 1,000 keys in turn, of which five share a call to Redis",
                    f"{fleet.asked_us:.0f} us",
                ),
                ("CPU of Redis for a call with one question", f"{seen['one_us']:.1f} us"),
                ("bytes on the network for that call, both directions", f"{seen['one_bytes']:,.0f}"),
                (
                    "CPU of Redis for a call that returns a lease and grants the next one "
                    f"(mean of {seen['lease_calls']:,} calls)",
                    f"{seen['lease_us']:.1f} us",
                ),
                ("bytes on the network for that call", f"{seen['lease_bytes']:,.0f}"),
                ("bytes in Redis for an active key", f"{results['redis_bytes']:.0f}"),
            ],
        ),
        "result": _table(
            (
                "keys",
                "load balancer",
                "leases",
                "answered by leases",
                "Redis calls per s",
                "Redis cores",
                "network",
                "worker cores",
            ),
            list(_rows(seen, fleet)),
        ),
        "memory": f"{KEYS:,} keys take {KEYS * results['redis_bytes'] / 1e6:.0f} MB",
        "busiest": f"{rates(is_skewed=True)[0] * seen['one_us'] / 1e6 / LOAD:.1f}",
        "reads": f"{KEYS * fleet.workers(leased=0) / 1e6:,.0f} million",
        "restart": f"{results['restart']['tickets_s']:.1f} s",
        "argon2": f"{results['restart']['argon2_s']:.0f} s",
    }
    text = _TEXT.read_text()
    for name, value in places.items():
        text = (
            text.replace(f"<!-- {name} -->\n", value)
            if value.startswith("|")
            else text.replace(f"<!-- {name} -->", value)
        )
    return text


def _rows(seen: Mapping[str, float], fleet: Fleet) -> Iterator[tuple[str, ...]]:
    yield "any", "any", "off", "-", *_redis(seen, Demand(0, RATE, 0)), f"{fleet.workers(leased=0):,}"
    for is_skewed in (False, True):
        for is_routed in (False, True):
            needed = fleet.demand(rates(is_skewed=is_skewed), is_routed=is_routed)
            names = ("skewed" if is_skewed else "even", "routed" if is_routed else "spread", "on")
            yield *names, f"{needed.leased:.0%}", *_redis(seen, needed), f"{fleet.workers(needed.leased):,}"


def _redis(seen: Mapping[str, float], needed: Demand) -> tuple[str, str, str]:
    busy = (needed.single * seen["one_us"] + needed.leases * seen["lease_us"]) / 1e6
    traffic = needed.single * seen["one_bytes"] + needed.leases * seen["lease_bytes"]
    return f"{needed.single + needed.leases:,.0f}", f"{math.ceil(busy / LOAD)}", f"{traffic / 1e6:,.0f} MB/s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
