"""``python -m reliability``, or ``make soak``: break things under load and say what was kept."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from reliability import campaign
from tests.session import Servers


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    servers = Servers()
    with tempfile.TemporaryDirectory() as name:
        redis = servers.start("valkey")
        with servers.fresh_postgres_url() as url:
            result = asyncio.run(campaign.run(redis, url, Path(name), options.faults, 2, options.seed, print))
            for row in result.rows:
                sys.stdout.write(f"{row}\n")
            for side in result.sides:
                sys.stdout.write(f"{side}\n")
    servers.close()


if __name__ == "__main__":
    main()
