"""One run of wrk against one server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LOAD_CPU = 1
"""The core of wrk and of Redis; the server under test has core 0 for itself."""
_SCRIPT = Path(__file__).with_name("load.lua")
_OUTLIVES_S = 30


@dataclass(frozen=True, slots=True)
class Sample:
    """Results of one run of wrk.

    Attributes:
        per_s: Requests answered per second.
        cpu_us: CPU time of the server per request, user and system, in microseconds.
        p50_us, p99_us: Latency in microseconds.
        refused: Responses of 400 and above.
        requests: Total responses.
        redis_calls: Scripts that Redis ran meanwhile.
    """

    per_s: float
    cpu_us: float
    p50_us: int
    p99_us: int
    refused: int
    requests: int
    redis_calls: int = 0


class LoadError(RuntimeError):
    """wrk did not run, or requests got no response."""


def find_wrk() -> str:
    """Return the path of wrk. Raise LoadError with instructions if it is missing."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("The benchmark needs wrk: apt-get install wrk (or brew install wrk).")
    return found


def write_requests(file: Path, headers: Sequence[Mapping[str, str]]) -> None:
    """Write the input of ``run``: the headers of one request after another."""
    lines = ["\t".join(f"{name}={value}" for name, value in one.items()) for one in headers]
    file.write_text("".join(f"{line}\n" for line in lines))


def run(url: str, path: str, requests: Path, skip: int, connections: int, duration_s: int, server_pid: int) -> Sample:
    """Load ``url`` over this many connections and return the results.

    Args:
        requests: File from ``write_requests``; the requests repeat after the last one.
        skip: Number of requests to skip at the start, so that one run does not repeat another.

    Raises:
        LoadError: If wrk failed, or a request got no response.
    """
    command = ["taskset", "-c", str(LOAD_CPU), find_wrk(), "-t1", f"-c{connections}", f"-d{duration_s}s"]
    server = psutil.Process(server_pid)
    before = server.cpu_times()
    finished = subprocess.run(
        [*command, "-s", str(_SCRIPT), url, "--", path, str(requests), str(skip)],
        capture_output=True,
        text=True,
        timeout=duration_s + _OUTLIVES_S,
        check=False,
    )
    after = server.cpu_times()
    line = next((line for line in finished.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise LoadError(f"wrk failed: {finished.stdout}{finished.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"] or not result["requests"]:
        raise LoadError(f"requests without an answer: {result}")
    cpu_s = after.user + after.system - before.user - before.system
    return Sample(
        per_s=result["requests"] / result["duration_us"] * 1e6,
        cpu_us=cpu_s / result["requests"] * 1e6,
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        refused=result["refused"],
        requests=result["requests"],
    )
