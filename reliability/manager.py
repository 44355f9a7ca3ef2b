"""Key changes through the management routes, with a record of acknowledgements and effective times."""

from __future__ import annotations

import math
import random
from typing import Any

from reliability.ledger import Credential, Ledger, OwnerRecord
from reliability.line import Line
from tests.helpers.fleet import Answer

OWNER = "reliability"
KEYS_OF_PROJECT = 3


class Manager:
    """A logged-in user. Each line may reach a different worker, and a change uses any of them.

    Args:
        lines: Connections for changes; one change at a time on each.
        ledger: Record of the changes.
        chance: Random source that picks the lines.
    """

    def __init__(self, lines: list[Line], ledger: Ledger, chance: random.Random) -> None:
        self._lines = lines
        self._ledger = ledger
        self._chance = chance
        self._session = ""
        self.admin_session = ""
        self._projects = 0
        self.changing: set[OwnerRecord] = set()
        """Owners that are being suspended or resumed."""
        self.made_late = 0
        """Keys that were requested but not created, because the service was unavailable."""

    async def log_in(self) -> str:
        """Start the sessions of the user and of an administrator. Required once, before all other calls.

        Return the user's.
        """
        self._session = await self._start_session(OWNER)
        self.admin_session = await self._start_session("root?scopes=*%20admin")
        return self._session

    async def _start_session(self, user: str) -> str:
        answer = await self._lines[0].ask("POST", f"/log-in/{user}")
        if answer is None or answer.status != 200:
            raise RuntimeError(f"no session: {answer}")
        return str(answer.body["session_token"])

    async def make_project(self, limit: int) -> OwnerRecord | None:
        """Create an owner with an hourly limit, and its keys. Return None if that is not possible now."""
        self._projects += 1
        owner_id = f"project-{self._projects}"
        limits = [{"name": "all", "limit": limit, "per": "hour"}]
        answer = await self._send("PUT", f"/owners/{owner_id}", {"limits": limits}, as_admin=True)
        if answer is None or answer.status == 503:
            self.made_late += 1
            return None
        self._ledger.expect(answer, {(200, None)}, "limit an owner")
        if answer.status != 200:
            return None
        owner = OwnerRecord(owner_id, limit, answer.ended_at, sure_from=answer.ended_at)
        for _ in range(KEYS_OF_PROJECT):
            answer = await self._send("POST", "", {"name": "key", "owner_id": owner_id}, as_admin=True)
            if answer is not None and answer.status == 201:
                self._ledger.made(answer.body["id"], answer.body["token"], None, answer.ended_at, owner)
        if owner.credentials:
            self._ledger.owners.append(owner)
        return owner

    async def suspend(self, owner: OwnerRecord) -> None:
        """Suspend an owner. If that is not acknowledged, its state is unknown."""
        owner.sure_from = owner.dead_from = math.inf
        answer = await self._send("POST", f"/owners/{owner.id}/suspend", {}, as_admin=True)
        if answer is not None:
            self._ledger.expect(answer, {(200, None)}, "suspend")
        owner.dead_from = _holds_from(answer, 200)
        owner.suspensions += owner.dead_from < math.inf

    async def suspend_or_resume(self, owner: OwnerRecord) -> None:
        """Suspend an owner, or resume it if it is suspended. No other change of this owner may run meanwhile."""
        self.changing.add(owner)
        try:
            await (self.resume if owner.dead_from < math.inf else self.suspend)(owner)
        finally:
            self.changing.discard(owner)

    async def resume(self, owner: OwnerRecord) -> None:
        """Resume an owner; see :meth:`suspend`."""
        owner.sure_from = owner.dead_from = math.inf
        answer = await self._send("POST", f"/owners/{owner.id}/resume", {}, as_admin=True)
        if answer is not None:
            self._ledger.expect(answer, {(200, None)}, "resume")
        owner.sure_from = _holds_from(answer, 200)

    async def make(self, limit: int | None = None) -> Credential | None:
        """Create a key. Return None if that is not possible now."""
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
        """Revoke a key.

        Return whether that was acknowledged; if not, its state is unknown and the call may be repeated.
        """
        credential.can_revive = False
        self._leave(credential, self._ledger.live)
        answer = await self._send("DELETE", f"/{credential.key.id}")
        return self._ended(credential, answer, 204, "revoke")

    async def disable(self, credential: Credential) -> bool:
        """Disable a key; see :meth:`revoke`."""
        self._leave(credential, self._ledger.live)
        answer = await self._send("PATCH", f"/{credential.key.id}", {"enabled": False})
        credential.can_revive = True
        return self._ended(credential, answer, 200, "disable")

    async def enable(self, credential: Credential) -> bool:
        """Enable a disabled key; see :meth:`revoke`."""
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
        """Revoke all keys whose state is unknown, until that is acknowledged."""
        while self._ledger.unsure:
            credential = self._ledger.unsure.pop()
            await self.revoke(credential)

    async def close(self) -> None:
        """Close the lines."""
        for line in self._lines:
            await line.close()

    def _leave(self, credential: Credential, where: list[Credential]) -> None:
        """Mark a credential as uncertain before the request is sent: either answer is permitted from now on."""
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

    async def _send(self, method: str, below: str, body: Any = None, *, as_admin: bool = False) -> Answer | None:
        line = self._chance.choice(self._lines)
        self._lines.remove(line)  # One request at a time on each line.
        try:
            session = self.admin_session if as_admin else self._session
            return await line.ask(method, f"/api-keys{below}", session=session, body=body)
        finally:
            self._lines.append(line)


def _holds_from(answer: Answer | None, status: int) -> float:
    """Return when a change holds on all workers, on the monotonic clock; infinity if it may not be stored."""
    if answer is None:
        return math.inf
    if answer.status == status:
        return answer.ended_at
    if answer.status == 503 and "holds_within_s" in answer.body:
        return answer.ended_at + float(answer.body["holds_within_s"])
    return math.inf
