"""``python -m reliability``, or ``make soak``: inject faults under load and report which promises hold.

First each fault of Redis many times, for both outage policies (``--faults``), then minutes of random faults
(``--minutes``). If a part was run in full, its figures go to ``reliability/results.json`` and the docs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from reliability import campaign, report, soak
from tests.helpers.session import Servers, postgres_version, redis_version

RESULTS = Path(__file__).with_name("results.json")
FULL_TIMES, FULL_MINUTES = 20, 10.0
CAMPAIGN_WORKERS = {"local": 2, "deny": 2}
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def say(text: str) -> None:
    """Print a line without buffering."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_campaign(servers: Servers, folder: Path, times: int, seed: int) -> campaign.Campaign:
    """Run each fault of Redis ``times`` times."""
    redis, postgres = servers.start("valkey"), servers.start("postgres")
    try:
        running = campaign.run(redis, postgres.url, folder / "campaign", times, CAMPAIGN_WORKERS, seed, say)
        return asyncio.run(running)
    finally:
        redis.close()
        postgres.close()


def run_soak(servers: Servers, folder: Path, minutes: float, seed: int) -> soak.Soak:
    """Run the soak, half of the minutes for each policy."""
    halves = []
    for number, policy in enumerate(("deny", "local")):
        redis = servers.start("valkey", *(DURABLE if policy == "deny" else ()))
        postgres = servers.start("postgres")
        chance = random.Random(seed + number)  # noqa: S311  # not cryptographic: the same seed must repeat the same run
        try:
            halves.append(asyncio.run(soak.run_half(policy, minutes * 30, (redis, postgres), folder / policy, chance)))
        finally:
            redis.close()
            postgres.close()
        say(f"soak, {policy}: {sum(row.times for row in halves[-1].faults)} faults")
    return soak.Soak(minutes, seed, halves)


def machine(servers: Servers) -> dict[str, str]:
    """Describe the machine, and how busy it was with other work."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = f"{redis_version(servers.url('valkey'))}, {postgres_version(servers.url('postgres'))}"
    return {**describe(versions), "load average before": load}


def keep(results: dict[str, Any], part: str, figures: dict[str, Any]) -> None:
    """Write a part's figures immediately: the other part may still fail."""
    results[part] = figures
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Run the selected parts. Exit with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("--faults", type=int, default=FULL_TIMES, help="times for each fault; 0: leave it out")
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES, help="of the soak; 0: leave it out")
    parser.add_argument("--seed", type=int, default=1, help="what is done when, as far as chance decides it")
    parser.add_argument("--report-only", action="store_true", help="write the report from the last results")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    is_clean = True
    if not options.report_only:
        servers = Servers()
        try:
            with tempfile.TemporaryDirectory(prefix="keyauth-soak-") as name:
                if options.faults:
                    found = machine(servers)
                    struck = run_campaign(servers, Path(name), options.faults, options.seed)
                    is_clean &= struck.is_clean()
                    say(report.campaign(asdict(struck)))
                    say("\n".join(example for side in struck.sides for example in side.examples))
                    if options.faults >= FULL_TIMES:
                        keep(results, "campaign", {**asdict(struck), "machine": found})
                if options.minutes:
                    found = machine(servers)
                    soaked = run_soak(servers, Path(name), options.minutes, options.seed)
                    is_clean &= soaked.is_clean()
                    say(report.soak(asdict(soaked)))
                    say("\n".join(example for half in soaked.halves for example in half.examples))
                    if options.minutes >= FULL_MINUTES:
                        keep(results, "soak", {**asdict(soaked), "machine": found})
        finally:
            servers.close()
    if {"campaign", "soak"} <= set(results):
        report.PAGE.write_text(report.page(results))
        say(f"wrote {report.PAGE}")
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
