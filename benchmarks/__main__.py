"""``python -m benchmarks``, or ``make bench``: measure all and write docs/benchmarks.md, its plot and the figures."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import growth, inside, report
from benchmarks.compare import Comparison
from benchmarks.load import LoadError, find_wrk
from benchmarks.machine import describe
from benchmarks.servers import pin_to_load_core, taskset
from benchmarks.subjects import DICTIONARY, OURS, PEERS, REFUSED, Subject
from tests.session import Servers

RESULTS = Path(__file__).with_name("results.json")


@contextmanager
def redis_server() -> Iterator[tuple[str, str]]:
    """A Valkey of our own on the load's core: URL and version."""
    servers = Servers()
    try:
        url = servers.url("valkey")
        for process in psutil.Process().children(recursive=True):
            pin_to_load_core(process.pid)
        yield url, servers.versions["valkey"]
    finally:
        servers.close()


def compare(subjects: tuple[Subject, ...], folder: Path, url: str, rounds: int, freeze: bool) -> list[dict[str, Any]]:
    """Figures of the subjects, as plain data."""
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


def measure(rounds: int) -> dict[str, Any]:
    """Everything, in the order of the report."""
    with tempfile.TemporaryDirectory(prefix="keyauth-bench-") as name, redis_server() as (url, version):
        folder = Path(name)
        results: dict[str, Any] = {"machine": describe(version), "rounds": rounds}
        print("our modes and refusals", flush=True)
        results["figures"] = compare((DICTIONARY, *OURS, *REFUSED), folder / "ours", url, rounds, freeze=True)
        print("other packages", flush=True)
        results["figures"] += compare(PEERS, folder / "peers", url, max(1, rounds // 2), freeze=True)
        print("without gc.freeze()", flush=True)
        thawed = tuple(replace(subject, connections=(16,)) for subject in (DICTIONARY, *OURS))
        results["thawed"] = compare(thawed, folder / "thawed", url, rounds, freeze=False)
        print("growth of the table", flush=True)
        results["tables"] = [asdict(row) for row in growth.by_table(folder, url, rounds, duration_s=1)]
        print("growth of the cache", flush=True)
        results["caches"] = [asdict(row) for row in growth.by_cache(folder)]
        print("inside one process", flush=True)
        results["hashing"] = asdict(asyncio.run(inside.hashing(folder, url)))
        results["hops"] = {
            shape: asdict(asyncio.run(inside.hops(folder, url, shape == "middleware")))
            for shape in ("dependency", "middleware")
        }
        results["redis_bytes"] = asyncio.run(inside.redis_bytes(folder, url))
        return results


def main() -> None:
    """See the module. Exits with 2 and a sentence where something that it needs is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5, about 25 minutes)")
    parser.add_argument("--report-only", action="store_true", help="write the report from the last results")
    options = parser.parse_args()
    try:
        if not options.report_only:
            find_wrk(), taskset()
            RESULTS.write_text(json.dumps(measure(options.rounds), indent=1) + "\n")
    except LoadError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for path in report.write(json.loads(RESULTS.read_text())):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
