"""A steady mix of requests: good keys, capped keys, keys that were ended, guesses and requests without any."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret
from reliability.ledger import Credential, Ledger
from reliability.line import Line
from tests.helpers.fleet import Outcome

GOOD, CAPPED, ENDED, GUESS, NOTHING = "good", "capped", "ended", "guess", "nothing"
MIX = {GOOD: 50, CAPPED: 25, ENDED: 20, GUESS: 3, NOTHING: 2}
"""Parts of a hundred."""
_AT_ONCE = 3
"""Capped keys that are driven to their cap at the same time: the newest."""
_ATTACKERS = 40
"""Addresses that guesses come from; no good key is ever sent from them."""

WRONG: set[Outcome] = {(401, "invalid_api_key"), (401, "malformed_api_key"), (429, "address_blocked")}
MISSING: set[Outcome] = {(401, "missing_api_key")}


class Load:
    """Clients that ask a site without end.

    Args:
        base_url: of the workers.
        ledger: has the keys, and judges.
        chance: what to ask next.
        clients: connections of good clients.
        pause_s: what each waits between its requests, on average.

    """

    def __init__(self, base_url: str, ledger: Ledger, chance: random.Random, clients: int, pause_s: float) -> None:
        self._ledger = ledger
        self._chance = chance
        self._pause_s = pause_s
        self._lines = [Line(base_url, ledger, f"198.51.100.{number + 1}") for number in range(clients)]
        self._attackers = [Line(base_url, ledger, f"203.0.113.{number + 1}") for number in range(_ATTACKERS)]
        self._is_over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep asking for as long as the block lasts; its last requests are answered before it ends."""
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(self._ask_on_and_on(line))
            try:
                yield
            finally:
                self._is_over.set()
        for line in (*self._lines, *self._attackers):
            await line.close()

    async def _ask_on_and_on(self, line: Line) -> None:
        kinds, weights = list(MIX), list(MIX.values())
        while not self._is_over.is_set():
            await asyncio.sleep(self._chance.uniform(0, 2 * self._pause_s))
            await self._ask(self._chance.choices(kinds, weights)[0], line)

    async def _ask(self, kind: str, line: Line) -> None:
        ledger = self._ledger
        if kind == NOTHING:
            answer = await line.ask("GET", "/models")
            if answer is not None:
                ledger.expect(answer, MISSING, "a request without a key")
        elif kind == GUESS:
            await self._guess()
        elif credentials := {GOOD: ledger.live, CAPPED: ledger.capped[-_AT_ONCE:], ENDED: ledger.dead}[kind]:
            # Half of the time one of the newest: what changed just now matters most.
            newest = credentials[-8:] if self._chance.random() < 0.5 else credentials
            await ask_with(line, ledger, self._chance.choice(newest))

    async def _guess(self) -> None:
        if not self._attackers:
            return
        attacker = self._attackers.pop(self._chance.randrange(len(self._attackers)))
        try:
            answer = await attacker.ask("GET", "/models", token=wrong_token())
        finally:
            self._attackers.append(attacker)
        if answer is not None:
            self._ledger.expect(answer, WRONG, "a guess")


async def ask_with(line: Line, ledger: Ledger, credential: Credential) -> None:
    """One request with a key, judged."""
    answer = await line.ask("GET", "/models", token=credential.token)
    if answer is not None:
        ledger.judge(answer, credential)


def wrong_token() -> str:
    """A well-formed token of no key."""
    return format_token("ka", "live", new_key_id(), new_secret())
