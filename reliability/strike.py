"""One fault, from its beginning until every worker is well again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from reliability.faults import AGAIN_S, Fault
from reliability.ledger import Tally
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


@dataclass(frozen=True)
class Outcome:
    """What one party saw of one fault, and the seconds from the server's return until every worker was well."""

    tally: Tally
    recovery_s: float


async def strike(
    fault: Fault,
    parties: Sequence[Party],
    hands: Hands,
    during_s: float,
    meanwhile: Callable[[Party], Awaitable[object]] | None = None,
) -> list[Outcome]:
    """Let it happen to all parties at once.

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
                    group.create_task(_done(meanwhile(party)))
        await hands.do(fault.end)
        back_at = time.monotonic()
        well_at = await asyncio.gather(*(party.recovered_at() for party in parties))
    return [Outcome(tally, at - back_at) for tally, at in zip(tallies, well_at, strict=True)]


async def _done(work: Awaitable[object]) -> None:
    await work
