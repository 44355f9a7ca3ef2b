"""Changes keys through the management routes, and writes down what was acknowledged and from when it holds."""

from __future__ import annotations

import math
import random
from typing import Any

from reliability.ledger import Credential, Ledger
from reliability.line import Line
from tests.helpers.fleet import Answer

OWNER = "reliability"


class Manager:
    """A logged-in user. Each line may hold to another worker, and a change goes over any of them.

    Args:
        lines: where changes are sent; one change at a time over each.
        ledger: where they are written down.
        chance: picks the lines.
    """

    def __init__(self, lines: list[Line], ledger: Ledger, chance: random.Random) -> None:
        self._lines = lines
        self._ledger = ledger
        self._chance = chance
        self._session = ""
        self.made_late = 0
        """Keys that were asked for and not made: nothing was there to make them."""

    async def log_in(self) -> str:
        """Start the session. Needed once, before all else."""
        answer = await self._lines[0].ask("POST", f"/log-in/{OWNER}")
        if answer is None or answer.status != 200:
            raise RuntimeError(f"no session: {answer}")
        self._session = str(answer.body["session_token"])
        return self._session

    async def make(self, limit: int | None = None) -> Credential | None:
        """A new key; None where it could not be made now."""
        body: dict[str, Any] = {"name": "key", **({} if limit is None else {"hourly_limit": limit})}
        answer = await self._send("POST", "", body)
        if answer is None or answer.status == 503:
            self.made_late += 1
            return None
        self._ledger.expect(answer, {(201, None)}, "make")
        if answer.status != 201:
            return None
        return self._ledger.made(answer.body["id"], answer.body["token"], limit, answer.ended_at)

    async def revoke(self, credential: Credential) -> bool:
        """End a key. Whether that was acknowledged; where it was not, nobody knows and it may be tried again."""
        credential.can_revive = False
        self._leave(credential, self._ledger.live)
        answer = await self._send("DELETE", f"/{credential.key.id}")
        return self._ended(credential, answer, 204, "revoke")

    async def disable(self, credential: Credential) -> bool:
        """Switch a key off; see :meth:`revoke`."""
        self._leave(credential, self._ledger.live)
        answer = await self._send("PATCH", f"/{credential.key.id}", {"enabled": False})
        credential.can_revive = True
        return self._ended(credential, answer, 200, "disable")

    async def enable(self, credential: Credential) -> bool:
        """Switch a disabled key on again; see :meth:`revoke`."""
        credential.can_revive = False
        self._leave(credential, self._ledger.dead)
        answer = await self._send("PATCH", f"/{credential.key.id}", {"enabled": True})
        holds_from = _holds_from(answer, 200)
        if answer is not None:
            self._ledger.expect(answer, {(200, None)}, "enable")
        credential.sure_from = holds_from
        (self._ledger.live if holds_from < math.inf else self._ledger.unsure).append(credential)
        return holds_from < math.inf

    async def rotate(self, credential: Credential) -> bool:
        """Replace a key's secret with no overlap; see :meth:`revoke`."""
        credential.can_revive = False
        self._leave(credential, self._ledger.live)
        answer = await self._send("POST", f"/{credential.key.id}/rotate", {"overlap_s": 0})
        if not self._ended(credential, answer, 201, "rotate"):
            return False
        if answer is not None:
            self._ledger.live.append(Credential(answer.body["token"], credential.key, credential.dead_from))
        return True

    async def settle(self) -> None:
        """Revoke what nobody knows to be good or ended, until that is acknowledged."""
        while self._ledger.unsure:
            credential = self._ledger.unsure.pop()
            await self.revoke(credential)

    async def close(self) -> None:
        """Let go of the lines."""
        for line in self._lines:
            await line.close()

    def _leave(self, credential: Credential, where: list[Credential]) -> None:
        """Before the request goes out: from now on neither admission nor refusal is sure."""
        if credential in where:
            where.remove(credential)
        credential.sure_from = credential.dead_from = math.inf

    def _ended(self, credential: Credential, answer: Answer | None, status: int, what: str) -> bool:
        holds_from = _holds_from(answer, status)
        if answer is not None:
            self._ledger.expect(answer, {(status, None)}, what)
        credential.dead_from = holds_from
        (self._ledger.dead if holds_from < math.inf else self._ledger.unsure).append(credential)
        return holds_from < math.inf

    async def _send(self, method: str, below: str, body: Any = None) -> Answer | None:
        line = self._chance.choice(self._lines)
        self._lines.remove(line)  # one request at a time over each
        try:
            return await line.ask(method, f"/api-keys{below}", session=self._session, body=body)
        finally:
            self._lines.append(line)


def _holds_from(answer: Answer | None, status: int) -> float:
    """From when a change holds everywhere, on the monotonic clock; infinity where it may not be stored."""
    if answer is None:
        return math.inf
    if answer.status == status:
        return answer.ended_at
    if answer.status == 503 and "holds_within_s" in answer.body:
        return answer.ended_at + float(answer.body["holds_within_s"])
    return math.inf
