"""``python -m benchmarks``, or ``make bench``: measure all, and write the page, its plot and the figures."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import calls, growth, in_flight, in_process, inside, limits, report, restart, revocation
from benchmarks.compare import Comparison
from benchmarks.load import LoadError, find_wrk
from benchmarks.machine import describe
from benchmarks.servers import pin_to_load_core, taskset
from benchmarks.subjects import COLD, DICTIONARY, OURS, PEERS, REFUSED, Subject
from tests.helpers.session import Servers

RESULTS = Path(__file__).with_name("results.json")
PARTS = {
    "ours": "our modes and refusals",
    "peers": "other packages",
    "frozen": "with gc.freeze()",
    "tables": "growth of the table",
    "caches": "growth of the cache",
    "limits": "growth of the list of limits",
    "inside": "inside one process",
    "in_process": "CPU without a server",
    "revocation": "revocations under load",
    "calls": "calls to Redis",
    "restart": "after a restart",
    "in_flight": "open streams",
}


@contextmanager
def redis_server() -> Iterator[tuple[str, str]]:
    """Start a Valkey on the load's core and yield its URL and version."""
    servers = Servers()
    try:
        url = servers.url("valkey")
        for process in psutil.Process().children(recursive=True):
            pin_to_load_core(process.pid)
        yield url, servers.versions["valkey"]
    finally:
        servers.close()


def compare(subjects: tuple[Subject, ...], folder: Path, url: str, rounds: int, freeze: bool) -> list[dict[str, Any]]:
    """Return the figures of the subjects as plain data."""
    comparison = Comparison(subjects, folder, url, {"BENCH_FREEZE": "1" if freeze else "0"})
    try:
        figures = comparison.measure(rounds, duration_s=1)
    finally:
        comparison.close()
    labels = {subject.name: subject for subject in subjects}
    return [
        {"name": name, "label": labels[name].label, "group": labels[name].group, "connections": count, **asdict(figure)}
        for (name, count), figure in figures.items()
    ]


def measure(parts: Collection[str], rounds: int, results: dict[str, Any]) -> dict[str, Any]:
    """Measure the requested parts in the order of the report; the other parts keep their results."""
    with tempfile.TemporaryDirectory(prefix="keyauth-bench-") as name, redis_server() as (url, version):
        folder = Path(name)
        results["machine"] = describe(version)
        measured = results.setdefault("rounds", {})
        for part in parts:
            measured[part] = rounds
            print(PARTS[part], flush=True)
            if part == "ours":
                results["ours"] = compare((DICTIONARY, *OURS, *REFUSED), folder / part, url, rounds, freeze=False)
                # Separately, because its leftovers would burden the others.
                results["ours"] += compare((COLD,), folder / "cold", url, 1, freeze=False)
            elif part == "peers":
                results["peers"] = compare(PEERS, folder / part, url, rounds, freeze=False)
            elif part == "frozen":
                some = tuple(replace(subject, connections=(16, 64)) for subject in (DICTIONARY, *OURS))
                results["frozen"] = compare(some, folder / part, url, rounds, freeze=True)
            elif part == "tables":
                results["tables"] = [asdict(row) for row in growth.by_table(folder, url, rounds, duration_s=1)]
            elif part == "caches":
                results["caches"] = [asdict(row) for row in growth.by_cache(folder)]
            elif part == "limits":
                results["limits"] = [asdict(row) for row in asyncio.run(limits.by_limits(folder, url, rounds))]
            elif part == "in_flight":
                results["in_flight"] = asdict(in_flight.measure(folder, url))
            elif part == "in_process":
                results["in_process"] = asyncio.run(in_process.above_bare(folder, url, rounds))
            elif part == "calls":
                results["calls"] = asdict(asyncio.run(calls.measure(folder, url)))
            elif part == "revocation":
                results["revocation"] = asdict(asyncio.run(revocation.measure(folder, url)))
            elif part == "restart":
                results["restart"] = asdict(restart.measure(folder, url))
            else:
                results["hashing"] = asdict(asyncio.run(inside.hashing(folder, url)))
                results["hops"] = {
                    shape: asdict(asyncio.run(inside.hops(folder, url, shape == "middleware")))
                    for shape in ("dependency", "middleware")
                }
                results["redis_bytes"] = asyncio.run(inside.redis_bytes(folder, url))
        return results


def main() -> None:
    """Run the benchmarks. Exit with status 2 and a one-line error if a requirement is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5, about 25 minutes)")
    parser.add_argument("--only", help=f"measure some parts again: {', '.join(PARTS)}", metavar="PART,PART")
    parser.add_argument("--report-only", action="store_true", help="write the report from the last results")
    options = parser.parse_args()
    try:
        if not options.report_only:
            find_wrk(), taskset()
            parts = options.only.split(",") if options.only else list(PARTS)
            if not set(parts) <= set(PARTS):
                parser.error(f"there are the parts {', '.join(PARTS)}")
            results = json.loads(RESULTS.read_text()) if options.only else {}
            RESULTS.write_text(json.dumps(measure(parts, options.rounds, results), indent=1) + "\n")
    except LoadError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for path in report.write(json.loads(RESULTS.read_text())):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
