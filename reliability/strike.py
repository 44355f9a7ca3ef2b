"""One fault, from its beginning until every worker is well again."""

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
    """One thread for all of a run: it starts servers, and Linux ends them together with the thread that did."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "hands")

    async def do(self, work: Callable[[], None]) -> None:
        """Run something that blocks."""
        await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def keep_doing(self, work: Callable[[], None], for_s: float) -> None:
        """Run it every ``AGAIN_S`` for so many seconds."""
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
    """Let it happen to all parties at once. What each of them saw goes into its ``seen``.

    Args:
        fault: what happens.
        parties: who meets it.
        hands: does it.
        during_s: how long it lasts.
        meanwhile: what each party does in the middle of it.
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
