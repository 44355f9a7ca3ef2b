"""One fault, from its beginning until every worker has recovered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from reliability.faults import AGAIN_S, Fault
from reliability.ledger import Struck
from reliability.party import Party


class Hands:
    """One thread for the whole run. Linux ends the servers together with the thread that started them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "hands")

    async def do(self, work: Callable[[], None]) -> None:
        """Run a blocking function in the thread."""
        await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def keep_doing(self, work: Callable[[], None], for_s: float) -> None:
        """Run a blocking function every ``AGAIN_S`` for this many seconds."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            await self.do(work)
            await asyncio.sleep(AGAIN_S)

    def close(self) -> None:
        """End the thread, and with it the servers that it started."""
        self._pool.shutdown()


async def strike(
    fault: Fault,
    parties: Sequence[Party],
    hands: Hands,
    during_s: float,
    meanwhile: Callable[[Party], Coroutine[None, None, None]] | None = None,
) -> None:
    """Inject the fault for all parties together. Each party's observations are added to its ``seen``.

    Args:
        fault: The fault to inject.
        parties: The affected parties.
        hands: Thread that runs it.
        during_s: Duration in seconds.
        meanwhile: Action of each party during the fault.
    """
    with ExitStack() as stack:
        tallies = [stack.enter_context(party.ledger.tally()) for party in parties]
        await hands.do(fault.begin)
        if fault.loses_data:
            for party in parties:
                party.ledger.data_lost_at.append(time.monotonic())
        async with asyncio.TaskGroup() as group:
            group.create_task(hands.keep_doing(fault.again, during_s))
            for party in parties:
                if meanwhile is not None:
                    group.create_task(meanwhile(party))
        await hands.do(fault.end)
        back_at = time.monotonic()
        well_at = await asyncio.gather(*(party.recovered_at() for party in parties))
    for party, tally, at in zip(parties, tallies, well_at, strict=True):
        party.seen[fault.name].append(Struck(tally, at - back_at))
