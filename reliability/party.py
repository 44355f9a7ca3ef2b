"""One side of a run: workers of one policy, load on them, an owner who changes keys, and the ledger."""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from reliability.ledger import Credential, Ledger, Struck, Tally
from reliability.line import Line
from reliability.load import Load
from reliability.manager import Manager
from reliability.pace import Pace
from reliability.site import Site

MANAGING = 6
"""Number of lines for changes to keys."""
OWNERS = 2
"""Number of owners with a limit at the start."""
_LAST_WORDS = 4000


@dataclass
class Party:
    """The parts of one side of a run.

    Attributes:
        seen: Observations of each fault, by its name.
        calm: Figures of the responses while nothing was broken.
        doomed: Two keys that every worker has cached, to be ended during a fault.
    """

    site: Site
    ledger: Ledger
    manager: Manager
    load: Load
    session: str = ""
    seen: defaultdict[str, list[Struck]] = field(default_factory=lambda: defaultdict(list))
    calm: Tally = field(default_factory=Tally)
    doomed: list[Credential] = field(default_factory=list)

    async def get_ready(self, keys: int, cap: int) -> None:
        """Log in, create the first keys and owners with a limit, and check that every worker is healthy."""
        self.session = await self.manager.log_in()
        for _ in range(keys):
            await self.manager.make()
        for _ in range(OWNERS):
            await self.manager.make_project(cap)
        await self.recovered_at()

    async def recovered_at(self) -> float:
        """Return when every worker had recovered, on the monotonic clock."""
        return await self.site.recovered_at(self.manager, self.session)

    async def prepare(self, cap: int) -> None:
        """Create a limited key and a limited owner, which the load uses up, and the two keys to end."""
        with self.ledger.tally() as calm:
            await self.manager.make(cap)
            await self.manager.make_project(cap)
            made = [await self.manager.make(), await self.manager.make()]
            self.doomed = [credential for credential in made if credential is not None]
            for credential in self.doomed:
                for _ in range(2):
                    await self.site.ask_every_worker(credential)
        self.calm.merge(calm)

    async def rest(self, for_s: float) -> None:
        """Let the load continue while nothing is broken."""
        with self.ledger.tally() as calm:
            await asyncio.sleep(for_s)
        self.calm.merge(calm)

    async def end_the_doomed(self) -> None:
        """Revoke one key and disable the other during the fault. Use it at every worker immediately afterwards."""
        for change, credential in zip((self.manager.revoke, self.manager.disable), self.doomed, strict=False):
            await change(credential)
            await self.site.ask_every_worker(credential)

    async def close(self) -> None:
        """Close all connections, and stop the workers, each with its shutdown."""
        await self.manager.close()
        await self.site.close()

    async def ask_for_the_dead(self) -> int:
        """Use every ended credential, and those of suspended owners, at every worker. Return their number."""
        suspended = [owner.credentials for owner in self.ledger.owners if owner.dead_from < math.inf]
        dead = [*self.ledger.dead, *chain.from_iterable(suspended)]
        for credential in dead:
            await self.site.ask_every_worker(credential)
        return len(dead)


@contextmanager
def party(
    policy: str,
    workers: int,
    folder: Path,
    env: Mapping[str, str],
    *,
    pace: Pace,
    may_refuse: bool,
    chance: random.Random,
) -> Iterator[Party]:
    """Yield a party, whose workers end with the block."""
    ledger = Ledger(policy, may_refuse)
    site = Site(policy, workers, folder, env, ledger)
    try:
        url = site.group.base_url
        lines = [Line(url, ledger, f"192.0.2.{number + 2}") for number in range(MANAGING)]
        load = Load(url, ledger, chance, pace.clients, pace.pause_s)
        yield Party(site, ledger, Manager(lines, ledger, chance), load)
    except BaseException:
        sys.stderr.write(f"the workers said:\n{site.group.log()[-_LAST_WORDS:]}\n")
        raise
    finally:
        site.group.close()
