"""A steady mix of requests: valid keys, limited keys, ended keys, guesses, and requests without a key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret
from reliability.ledger import Credential, Ledger
from reliability.line import Line
from tests.helpers.fleet import Outcome

GOOD, CAPPED, PROJECT, ENDED, GUESS, NOTHING = "good", "capped", "project", "ended", "guess", "nothing"
MIX = {GOOD: 40, CAPPED: 20, PROJECT: 15, ENDED: 20, GUESS: 3, NOTHING: 2}
"""Percentages of the mix."""
_AT_ONCE = 3
"""Number of keys, and of owners, with an hourly limit that are used up concurrently: the newest."""
_ATTACKERS = 40
"""Number of addresses that guesses come from; requests with valid keys never come from them."""

WRONG: set[Outcome] = {(401, "invalid_api_key"), (401, "malformed_api_key"), (429, "address_blocked")}
MISSING: set[Outcome] = {(401, "missing_api_key")}


class Load:
    """Clients that send requests to a site continuously.

    Args:
        base_url: Base URL of the workers.
        ledger: Holds the keys and checks the responses.
        chance: Source of random choices of requests.
        clients: Number of connections with valid keys.
        pause_s: Average pause between the requests of a client.

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
        """Keep sending requests while the block runs; the last requests complete before it ends."""
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
        elif kind == PROJECT:
            if ledger.owners:
                owner = self._chance.choice(ledger.owners[-_AT_ONCE:])
                await ask_with(line, ledger, self._chance.choice(owner.credentials))
        elif credentials := {GOOD: ledger.live, CAPPED: ledger.capped[-_AT_ONCE:], ENDED: ledger.dead}[kind]:
            # Half of the time one of the newest keys: the latest changes matter most.
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
    """Send one request with a key and check the response."""
    answer = await line.ask("GET", "/models", token=credential.token)
    if answer is not None:
        ledger.judge(answer, credential)


def wrong_token() -> str:
    """Return a well-formed token that does not belong to any key."""
    return format_token("ka", "live", new_key_id(), new_secret())
