"""All subjects compared: interleaved rounds, each figure paired with the bare route measured just before it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import find_python
from benchmarks.load import Sample
from benchmarks.servers import AppServer
from benchmarks.subjects import Subject, bare

Pair = tuple[Sample, Sample]
"""A subject, and the bare route measured just before."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians over all rounds.

    Attributes:
        share: Requests per second as a share of bare.
        lowest, highest: Extremes of that share over the rounds.
        cpu_us: Server CPU per request.
        above_us: Server CPU per request, above bare.
        p99_ratio: p99 latency divided by that of bare.
        p99_ms, bare_p99_ms: The two latencies, in milliseconds.
        per_s: Requests per second.
        redis_calls: Scripts that Redis ran for 1,000 requests.
    """

    share: float
    lowest: float
    highest: float
    cpu_us: float
    above_us: float
    p99_ratio: float
    p99_ms: float
    bare_p99_ms: float
    per_s: float
    redis_calls: float

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Figure:
        """Return the medians of a list of pairs."""
        shares = [subject.per_s / base.per_s for subject, base in pairs]
        return cls(
            share=statistics.median(shares),
            lowest=min(shares),
            highest=max(shares),
            cpu_us=statistics.median(subject.cpu_us for subject, _ in pairs),
            above_us=statistics.median(subject.cpu_us - base.cpu_us for subject, base in pairs),
            p99_ratio=statistics.median(subject.p99_us / base.p99_us for subject, base in pairs),
            p99_ms=statistics.median(subject.p99_us for subject, _ in pairs) / 1000,
            bare_p99_ms=statistics.median(base.p99_us for _, base in pairs) / 1000,
            per_s=statistics.median(subject.per_s for subject, _ in pairs),
            redis_calls=statistics.median(subject.redis_calls / subject.requests for subject, _ in pairs) * 1000,
        )


class Comparison:
    """Servers of some subjects and of their bare routes, and their measurement."""

    def __init__(self, subjects: Sequence[Subject], folder: Path, redis_url: str, extra: Mapping[str, str]) -> None:
        self._subjects = subjects
        self._stack = ExitStack()
        self._servers: dict[str, AppServer] = {}
        wanted = {bare(subject.environment).name: bare(subject.environment) for subject in subjects}
        try:
            for subject in (*wanted.values(), *subjects):
                if subject.name not in self._servers:
                    python = find_python(subject.environment)
                    server = AppServer(subject, python, folder / subject.name, redis_url, extra)
                    self._stack.callback(server.close)
                    self._servers[subject.name] = server
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Stop the servers."""
        self._stack.close()

    def measure(self, rounds: int, duration_s: int) -> dict[tuple[str, int], Figure]:
        """Return figures by subject and number of connections."""
        pairs: dict[tuple[str, int], list[Pair]] = {}
        for server in self._servers.values():
            self._run(server, min(server.subject.connections[-1], 16), 1)
        for number in range(rounds):
            for subject in self._subjects:
                for connections in subject.connections:
                    base = self._run(self._servers[bare(subject.environment).name], connections, duration_s)
                    seen = self._run(self._servers[subject.name], connections, duration_s)
                    pairs.setdefault((subject.name, connections), []).append((seen, base))
            print(f"round {number + 1} of {rounds} done", flush=True)
        for server in self._servers.values():
            server.check()  # The response is still the same, and comes from Redis.
        return {name: Figure.of(seen) for name, seen in pairs.items()}

    def _run(self, server: AppServer, connections: int, duration_s: int) -> Sample:
        is_slow = server.subject.name in ("cold", "keyshield")
        # A server that takes a second per request needs more of them.
        sample = server.load(connections, duration_s * 5 if server.subject.name == "keyshield" else duration_s)
        if is_slow:
            server.settle()
        return sample
