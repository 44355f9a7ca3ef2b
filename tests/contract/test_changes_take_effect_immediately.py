"""Section 7, "Revocation is immediate": after the response to a change, no worker admits what it removed.

Four workers get requests with one key continuously, on connections that stay open, while the change is made through
one of them. Each request was sent either before the change or after its response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.helpers.fleet import (
    BUSY_EACH,
    MORE,
    WARM_UP,
    WORKERS,
    Answer,
    Fleet,
    Outcome,
    connected_to_every_worker,
    outcomes,
    running_workers,
)
from tests.helpers.session import Servers
from tests.helpers.thorough import turns
from tests.helpers.waiting import until
from tests.helpers.workers import Workers

WRITTEN_WITHIN_S = 10.0
pytestmark = pytest.mark.timeout(
    turns(1200, 240)
)  # four workers, and some thousands of requests, on a busy machine too

ADMITTED: Outcome = (200, None)


@dataclass(frozen=True)
class Owner:
    """A logged-in user who manages keys through one worker after another."""

    fleet: Fleet
    session: Mapping[str, str]

    async def make_key(self, turn: int, scopes: Sequence[str] = ("*",)) -> dict[str, Any]:
        """Create a key; every second one has a high limit, the others have none."""
        limit = {"hourly_limit": 1_000_000} if turn % 2 else {}
        body = {"name": f"key {turn}", "scopes": list(scopes), "metadata": {"turn": turn}, **limit}
        made = await self.send(turn, "POST", "", body)
        assert made.status == 201
        key: dict[str, Any] = made.body
        return key

    async def send(self, turn: int, method: str, below: str, body: Any = None) -> Answer:
        """Send a management request."""
        return await self.fleet.manage(turn, method, f"/api-keys{below}", self.session, body)

    @asynccontextmanager
    async def change_on(self, below: str, turns: Sequence[int]) -> AsyncIterator[None]:
        """Make other changes through some workers before, during and after the block, which revokes."""
        is_under_way, is_over = asyncio.Event(), asyncio.Event()

        async def keep_changing(turn: int) -> Outcome:
            for number in count():
                is_last = is_over.is_set()
                changed = await self.send(turn, "PATCH", below, {"metadata": {"turn": turn, "number": number}})
                is_under_way.set()
                if is_last:
                    break
            return changed.outcome

        async with asyncio.TaskGroup() as group:
            changing = [group.create_task(keep_changing(turn)) for turn in turns]
            if changing:
                await is_under_way.wait()
            yield
            is_over.set()
        assert [task.result() for task in changing] == [(409, "key_not_active")] * len(turns)

    async def read(self, turn: int, key_id: str) -> dict[str, Any]:
        """Return a key as its row is now."""
        found: dict[str, Any] = (await self.send(turn, "GET", f"/{key_id}")).body
        return found

    async def has_counted(self, key_id: str, answers: list[Answer]) -> bool:
        """Return whether every worker has written its usage of the key."""
        hours = (await self.send(0, "GET", f"/{key_id}/usage?hours=2")).body["items"]
        admitted = sum(answer.outcome == ADMITTED for answer in answers)
        written = [sum(hour[which] for hour in hours) for which in ("admitted", "refused")]
        return written == [admitted, len(answers) - admitted]


def check(change: Answer, answers: list[Answer], fleet: Fleet, *, was: Outcome, became: Outcome) -> None:
    """Check that every worker gave one answer before the change, and the other to requests after its response."""
    before = [answer for answer in answers if answer.ended_at < change.began_at]
    after = [answer for answer in answers if answer.began_at > change.ended_at]
    late = [round((answer.began_at - change.ended_at) * 1000, 1) for answer in after if answer.outcome != became]
    assert len(before) >= WORKERS * BUSY_EACH * WARM_UP
    assert outcomes(before) == fleet.everywhere(was)
    assert len(after) >= WORKERS * (1 + BUSY_EACH * MORE)
    assert outcomes(after) == fleet.everywhere(became), f"sent so many ms after the answer to the change: {late}"
    assert {answer.outcome for answer in answers} == {was, became}


def without_use(key: Mapping[str, Any], besides: Set[str] = frozenset()) -> dict[str, Any]:
    """Return the row without the columns that usage writes, and without some other fields."""
    secrets = [{**secret, "last_used_at": None} for secret in key["secrets"]]
    return {name: value for name, value in key.items() if name not in {"last_used_at", *besides}} | {"secrets": secrets}


@pytest.fixture(scope="module")
def workers(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with running_workers(servers, tmp_path_factory.mktemp("changes") / "uvicorn") as group:
        yield group


@pytest.fixture
async def fleet(workers: Workers) -> AsyncIterator[Fleet]:
    async with connected_to_every_worker(workers.base_url) as fleet:
        yield fleet


@pytest.fixture
async def owner(fleet: Fleet, request: pytest.FixtureRequest) -> Owner:
    """Yield a user for this test alone."""
    made = await fleet.manage(0, "POST", f"/log-in/{request.function.__name__}")
    return Owner(fleet, {"authorization": f"Bearer {made.body['session_token']}"})


@pytest.mark.parametrize(("keys", "others"), [(50, 0), (turns(12, 4), 2)], ids=["alone", "amid other changes"])
async def test_revoked_key_is_refused_by_every_worker_and_stays_revoked(
    fleet: Fleet, owner: Owner, keys: int, others: int
) -> None:
    """Other changes through other workers make all of them read the row again at that moment."""
    refused = (401, "revoked_api_key")
    seen: list[tuple[str, dict[str, Any], list[Answer]]] = []
    for turn in range(keys):
        key = await owner.make_key(turn)
        path = f"/{key['id']}"
        async with (
            fleet.load(turn, "/models", key["token"]) as answers,
            owner.change_on(path, range(turn + 1, turn + 1 + others)),
        ):
            revoked = await owner.send(turn, "DELETE", path)
            answers += await fleet.ask_every_worker("/models", key["token"])
        assert revoked.status == 204
        check(revoked, answers, fleet, was=ADMITTED, became=refused)
        row = await owner.read(turn + 1, key["id"])
        assert row["status"] == "revoked"
        assert row["revoked_at"] is not None
        changed = {"status", "revoked_at", "metadata"} if others else {"status", "revoked_at"}
        assert without_use(row, changed) == without_use(key, changed | {"token"})
        seen.append((key["token"], row, answers))
    for turn, (token, row, answers) in enumerate(seen):
        await until(partial(owner.has_counted, row["id"], answers), WRITTEN_WITHIN_S)
        written = await owner.read(turn, row["id"])
        assert without_use(written) == without_use(row)
        assert datetime.fromisoformat(written["last_used_at"]) > datetime.fromisoformat(row["created_at"])
        assert outcomes(await fleet.ask_every_worker("/models", token)) == fleet.everywhere(refused)


async def test_no_worker_admits_a_request_that_began_after_its_owner_was_suspended(fleet: Fleet, owner: Owner) -> None:
    key = await owner.make_key(1)
    admin = (await fleet.manage(0, "POST", "/log-in/root?scopes=*%20admin")).body["session_token"]
    session, path = {"authorization": f"Bearer {admin}"}, f"/api-keys/owners/{key['owner_id']}"
    for turn in range(turns(200, 20)):
        async with fleet.load(turn, "/models", key["token"]) as answers:
            suspended = await fleet.manage(turn, "POST", f"{path}/suspend", session, {})
            answers += await fleet.ask_every_worker("/models", key["token"])
        assert suspended.status == 200
        check(suspended, answers, fleet, was=ADMITTED, became=(401, "owner_suspended"))
        resumed = await fleet.manage(turn + 1, "POST", f"{path}/resume", session, {})
        assert resumed.status == 200
        admitted = await fleet.ask_every_worker("/models", key["token"])
        assert outcomes(admitted) == fleet.everywhere(ADMITTED)


async def test_removed_scope_is_missing_at_every_worker(fleet: Fleet, owner: Owner) -> None:
    for turn in range(turns(12, 5)):
        key = await owner.make_key(turn, ["items:read", "items:write"])
        async with fleet.load(turn, "/items", key["token"]) as answers:
            narrowed = await owner.send(turn, "PATCH", f"/{key['id']}", {"scopes": ["items:write"]})
            answers += await fleet.ask_every_worker("/items", key["token"])
            elsewhere = await fleet.ask_every_worker("/models", key["token"])
        assert narrowed.status == 200
        check(narrowed, answers, fleet, was=ADMITTED, became=(403, "insufficient_scope"))
        assert outcomes(elsewhere) == fleet.everywhere(ADMITTED)
        assert (await owner.read(turn + 1, key["id"]))["scopes"] == ["items:write"]


async def test_rotation_without_overlap_swaps_the_tokens_at_every_worker(fleet: Fleet, owner: Owner) -> None:
    for turn in range(turns(12, 5)):
        key = await owner.make_key(turn)
        async with fleet.load(turn, "/models", key["token"]) as answers:
            rotated = await owner.send(turn, "POST", f"/{key['id']}/rotate", {"overlap_s": 0})
            answers += await fleet.ask_every_worker("/models", key["token"])
            renewed = await fleet.ask_every_worker("/models", rotated.body["token"])
        assert rotated.status == 201
        check(rotated, answers, fleet, was=ADMITTED, became=(401, "expired_api_key"))
        assert outcomes(renewed) == fleet.everywhere(ADMITTED)


async def test_disabled_key_is_refused_by_every_worker_until_it_is_enabled(fleet: Fleet, owner: Owner) -> None:
    disabled = (401, "disabled_api_key")
    for turn in range(turns(12, 5)):
        key = await owner.make_key(turn)
        for enabled, was, became in ((False, ADMITTED, disabled), (True, disabled, ADMITTED)):
            async with fleet.load(turn, "/models", key["token"]) as answers:
                changed = await owner.send(turn + enabled, "PATCH", f"/{key['id']}", {"enabled": enabled})
                answers += await fleet.ask_every_worker("/models", key["token"])
            assert changed.status == 200
            check(changed, answers, fleet, was=was, became=became)
