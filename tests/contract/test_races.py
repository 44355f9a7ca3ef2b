"""Many processes concurrently on one key, one address, one owner: exact limits stay exact.

All workers read one clock, which stands still until a test moves it, so that an hour ends for all of them together.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest

from tests.helpers.fleet import (
    LOAD_DEADLINE_S,
    Answer,
    Connection,
    Fleet,
    Outcome,
    Request,
    connected_to_every_worker,
    outcomes,
    running_workers,
)
from tests.helpers.session import Servers
from tests.helpers.shared_clock import SharedClock
from tests.helpers.stage import HOUR_S
from tests.helpers.thorough import turns
from tests.helpers.tokens import NO_TOKEN, forge
from tests.helpers.waiting import until
from tests.helpers.workers import Workers

BLOCK_AFTER, BLOCK_FOR_S, MAX_KEYS = 20, 300, 5
ENOUGH = 60
"""Refusals that a storm meets before it ends: some for each connection."""
START = 1_800_000_000.0  # a full hour

ADMITTED: Outcome = (200, None)
LIMITED: Outcome = (429, "rate_limit_exceeded")
BLOCKED: Outcome = (429, "address_blocked")
EXPIRED: Outcome = (401, "expired_api_key")
REVOKED: Outcome = (401, "revoked_api_key")
NOT_ACTIVE: Outcome = (409, "key_not_active")

Session = dict[str, str]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> SharedClock:
    clock = SharedClock(tmp_path_factory.mktemp("clock") / "seconds")
    clock.set(START)
    return clock


@pytest.fixture(scope="module")
def workers(servers: Servers, clock: SharedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    env = {
        "TEST_CLOCK": str(clock.file),
        "KEYAUTH_BLOCK_AFTER_FAILURES": str(BLOCK_AFTER),
        "KEYAUTH_BLOCK_FOR_S": str(BLOCK_FOR_S),
        "KEYAUTH_MAX_KEYS_PER_OWNER": str(MAX_KEYS),
        "KEYAUTH_TRUSTED_PROXIES": "127.0.0.1",  # so that a test may come from an address of its own
    }
    with running_workers(servers, tmp_path_factory.mktemp("races") / "uvicorn", env) as group:
        yield group


@pytest.fixture
async def fleet(workers: Workers) -> AsyncIterator[Fleet]:
    async with connected_to_every_worker(workers.base_url) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def hour(clock: SharedClock) -> float:
    """Return the end of an hour that no earlier test has used; the clock is in the middle of it."""
    clock.set((clock() // HOUR_S + 3) * HOUR_S + HOUR_S / 2)
    return clock() + HOUR_S / 2


@pytest.fixture
async def owner(fleet: Fleet, request: pytest.FixtureRequest) -> Session:
    """Return the headers of a user for this test alone."""
    made = await fleet.manage(0, "POST", f"/log-in/{request.function.__name__}")
    return {"authorization": f"Bearer {made.body['session_token']}"}


async def make_key(fleet: Fleet, owner: Session, **fields: Any) -> dict[str, Any]:
    """Create a key of that user."""
    made = await fleet.manage(0, "POST", "/api-keys", owner, {"name": "key", **fields})
    assert made.status == 201, made
    key: dict[str, Any] = made.body
    return key


def use(token: str, address: str = "203.0.113.1") -> Request:
    """Return a request with a key."""
    return "GET", "/models", {"api-key": token, "x-forwarded-for": address}


def told(answers: list[Answer]) -> Counter[Outcome]:
    """Return how often each outcome occurred."""
    return Counter(answer.outcome for answer in answers)


def until_met(outcome: Outcome, answers: list[Answer], request: Request) -> Iterator[Request]:
    """Yield the request until this outcome occurred often enough."""
    while told(answers)[outcome] < ENOUGH:
        yield request


def ends_in_s(answer: Answer) -> int:
    """Return the `t` of the RateLimit header."""
    found = re.search(r";t=(\d+)", answer.headers["ratelimit"])
    assert found is not None
    return int(found[1])


async def test_limit_is_exact_while_the_key_is_rotated(fleet: Fleet, owner: Session) -> None:
    """Both secrets of an overlap share one limit; a secret that a later rotation ends uses no units."""
    key = await make_key(fleet, owner, hourly_limit=150)
    tokens = [key["token"]]
    answers: list[Answer] = []

    async def rotate_thrice() -> None:
        for turn in range(3):

            def is_its_turn(wanted: int = 30 * (turn + 1)) -> bool:
                return told(answers)[ADMITTED] >= wanted

            await until(is_its_turn, LOAD_DEADLINE_S, every_s=0.005)
            rotated = await fleet.manage(turn, "POST", f"/api-keys/{key['id']}/rotate", owner, {"overlap_s": 3600})
            assert rotated.status == 201
            tokens.append(rotated.body["token"])

    def requests() -> Iterator[Request]:
        for number in count():
            if told(answers)[LIMITED] >= ENOUGH and len(tokens) == 4:
                return
            yield use(tokens[-1 - number % min(len(tokens), 3)])

    async with asyncio.TaskGroup() as group:
        group.create_task(rotate_thrice())
        group.create_task(fleet.storm(requests(), answers))
    assert told(answers)[ADMITTED] == 150
    assert set(told(answers)) == {ADMITTED, LIMITED, EXPIRED}


async def test_limits_of_an_owner_and_of_its_keys_are_exact_over_all_workers(fleet: Fleet, owner: Session) -> None:
    keys = [await make_key(fleet, owner, name=f"key {number}", hourly_limit=300) for number in range(5)]
    admin = (await fleet.manage(0, "POST", "/log-in/root?scopes=*%20admin")).body["session_token"]
    limits = [{"name": "project", "limit": 1000, "per": "hour"}]
    path = f"/api-keys/owners/{keys[0]['owner_id']}"
    stored = await fleet.manage(1, "PUT", path, {"authorization": f"Bearer {admin}"}, {"limits": limits})
    assert stored.status == 200
    answers: list[Answer] = []

    def requests() -> Iterator[Request]:
        # Some keys are used more than others, so that some limits of keys are reached before the owner's.
        for number in count():
            if told(answers)[LIMITED] >= 5 * ENOUGH and told(answers)[ADMITTED] >= 1000:
                return
            yield use(keys[min(number % 7, 4)]["token"])

    await fleet.storm(requests(), answers)
    admitted = Counter(answer.body["id"] for answer in answers if answer.outcome == ADMITTED)
    assert admitted.total() == 1000
    assert max(admitted.values()) <= 300
    assert len(admitted) == 5
    assert set(outcomes(answers)) == fleet.workers
    refused = [answer.body["violated-policies"] for answer in answers if answer.outcome == LIMITED]
    assert {policy for policies in refused for policy in policies} == {"hour", "owner-project"}


async def test_limit_is_exact_before_and_after_the_end_of_an_hour(
    fleet: Fleet, owner: Session, clock: SharedClock, hour: float
) -> None:
    """The hour ends during the load, while responses of both hours are in flight."""
    clock.set(hour - 0.25)
    key = await make_key(fleet, owner, hourly_limit=100)
    answers: list[Answer] = []

    def requests() -> Iterator[Request]:
        yield from until_met(LIMITED, answers, use(key["token"]))
        clock.set(hour)
        while told([answer for answer in answers if ends_in_s(answer) > 1])[LIMITED] < ENOUGH:
            yield use(key["token"])

    await fleet.storm(requests(), answers)
    old = [answer for answer in answers if ends_in_s(answer) == 1]
    new = [answer for answer in answers if ends_in_s(answer) > 1]
    assert told(old)[ADMITTED] == told(new)[ADMITTED] == 100
    assert set(outcomes(new)) == set(outcomes(old)) == fleet.workers


async def test_unused_units_end_with_their_hour(fleet: Fleet, owner: Session, clock: SharedClock, hour: float) -> None:
    clock.set(hour - 0.25)
    key = await make_key(fleet, owner, hourly_limit=100)
    answers: list[Answer] = []

    def requests() -> Iterator[Request]:
        while told(answers)[ADMITTED] < 50:
            yield use(key["token"])
        clock.set(hour)
        yield from until_met(LIMITED, answers, use(key["token"]))

    await fleet.storm(requests(), answers)
    assert told([answer for answer in answers if ends_in_s(answer) == 1])[ADMITTED] >= 50
    assert told([answer for answer in answers if ends_in_s(answer) > 1])[ADMITTED] == 100


async def test_the_failure_that_reaches_the_number_is_the_last_that_is_answered_as_one(
    fleet: Fleet, owner: Session, clock: SharedClock
) -> None:
    """Failures of every kind and valid requests concurrently: after the block begins, all are refused until it ends."""
    key, address = await make_key(fleet, owner), "198.51.100.1"
    wrong = (NO_TOKEN, forge(key_id=key["id"]), forge(), forge(secret="B" * 43))
    good = use(key["token"], address)
    failing = [use(wrong[number % len(wrong)], address) for number in range(100)]
    answers = await fleet.storm(request for pair in zip(failing, [good] * 100, strict=True) for request in pair)
    failed = [answer for answer in answers if answer.status == 401]
    assert len(failed) == BLOCK_AFTER
    assert set(told(failed)) == {(401, "malformed_api_key"), (401, "invalid_api_key")}
    assert set(told(answers)) - set(told(failed)) == {ADMITTED, BLOCKED}
    # Other workers may admit from leases until the failure that begins the block is answered.
    begun_at = max(answer.ended_at for answer in failed)
    assert set(told([answer for answer in answers if answer.began_at > begun_at])) <= {BLOCKED}
    assert outcomes(await fleet.storm([good] * ENOUGH)) == fleet.everywhere(BLOCKED)
    clock.set(clock() + BLOCK_FOR_S - 0.25)
    assert outcomes(await fleet.storm([good] * ENOUGH)) == fleet.everywhere(BLOCKED)
    clock.set(clock() + 0.25)
    assert outcomes(await fleet.storm([good] * ENOUGH)) == fleet.everywhere(ADMITTED)
    again = await fleet.storm(failing)
    assert told(again)[BLOCKED] == len(failing) - BLOCK_AFTER, "the count begins anew"


async def test_what_changes_during_a_block_holds_when_it_ends(fleet: Fleet, owner: Session, clock: SharedClock) -> None:
    doomed, capped = await make_key(fleet, owner), await make_key(fleet, owner)
    address = "198.51.100.2"
    for key in (doomed, capped):
        assert outcomes(await fleet.storm([use(key["token"], address)] * ENOUGH)) == fleet.everywhere(ADMITTED)
    await fleet.storm([use(NO_TOKEN, address)] * ENOUGH)
    answers: list[Answer] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.storm(until_met(BLOCKED, answers, use(doomed["token"], address)), answers))
        group.create_task(fleet.manage(1, "DELETE", f"/api-keys/{doomed['id']}", owner))
        group.create_task(fleet.manage(2, "PATCH", f"/api-keys/{capped['id']}", owner, {"scopes": ["items:write"]}))
    assert set(told(answers)) == {BLOCKED}
    clock.set(clock() + BLOCK_FOR_S)
    assert outcomes(await fleet.storm([use(doomed["token"], address)] * ENOUGH)) == fleet.everywhere(REVOKED)
    items = "GET", "/items", {"api-key": capped["token"], "x-forwarded-for": address}
    assert outcomes(await fleet.storm([items] * ENOUGH)) == fleet.everywhere((403, "insufficient_scope"))


async def test_no_owner_gets_more_keys_than_allowed(fleet: Fleet, owner: Session) -> None:
    create: Request = ("POST", "/api-keys", owner, {"name": "one of many"})
    made = await fleet.storm([create] * 40)
    assert told(made) == {(201, None): MAX_KEYS, (409, "too_many_keys"): 40 - MAX_KEYS}
    ids = [answer.body["id"] for answer in made if answer.status == 201]
    mixed = await fleet.storm([create, ("DELETE", f"/api-keys/{ids[0]}", owner), *[create] * 30])
    mixed += await fleet.storm([create] * 5)
    assert told(mixed)[201, None] == 1
    page = await fleet.manage(0, "GET", "/api-keys?status=active", owner)
    assert len(page.body["items"]) == MAX_KEYS


@pytest.mark.parametrize(("overlap_s", "alive"), [(3600, 2), (0, 1)])
async def test_concurrent_rotations_leave_few_live_secrets(
    fleet: Fleet, owner: Session, overlap_s: int, alive: int
) -> None:
    key = await make_key(fleet, owner)
    rotated = await fleet.storm([("POST", f"/api-keys/{key['id']}/rotate", owner, {"overlap_s": overlap_s})] * 20)
    assert set(told(rotated)) == {(201, None)}
    tokens = [key["token"], *(answer.body["token"] for answer in rotated)]
    found = [outcomes(await fleet.ask_every_worker("/models", token)) for token in tokens]
    assert found.count(fleet.everywhere(ADMITTED)) == alive
    assert found.count(fleet.everywhere(EXPIRED)) == len(tokens) - alive
    row = await fleet.manage(1, "GET", f"/api-keys/{key['id']}", owner)
    assert len(row.body["secrets"]) == alive


async def test_nothing_that_races_with_a_revocation_undoes_it(fleet: Fleet, owner: Session) -> None:
    """Whichever came first, a revoked key has no valid secret and is revoked in its row."""
    for turn in range(turns(thorough=8, brief=3)):
        key = await make_key(fleet, owner)
        path = f"/api-keys/{key['id']}"
        others: list[Request] = [
            ("PATCH", path, owner, {"enabled": True}),
            ("POST", f"{path}/rotate", owner, {"overlap_s": 0}),
            ("PATCH", path, owner, {"expires_at": None, "name": "alive"}),
            ("POST", f"{path}/rotate", owner, {"overlap_s": 3600}),
            use(key["token"]),
        ]
        storm: list[Request] = [*others * 2, ("DELETE", path, owner), *others * 2]
        answers = await fleet.storm(storm[turn:] + storm[:turn])
        assert told(answers)[204, None] == 1
        assert set(told(answers)) <= {(200, None), (201, None), (204, None), NOT_ACTIVE, REVOKED, EXPIRED}
        tokens = [key["token"], *(answer.body["token"] for answer in answers if answer.status == 201)]
        for token in tokens:
            assert outcomes(await fleet.ask_every_worker("/models", token)) == fleet.everywhere(REVOKED)
        row = (await fleet.manage(turn, "GET", path, owner)).body
        assert (row["status"], row["revoked_at"] is None) == ("revoked", False)


async def test_clients_that_disconnect_lose_only_their_own_unit(fleet: Fleet, owner: Session, workers: Workers) -> None:
    """They disconnect after sending, while requests of others are in the same batch."""
    limit, gone = 1000, 150
    key = await make_key(fleet, owner, hourly_limit=limit)
    answers: list[Answer] = []

    async def send_and_hang_up() -> None:
        connection = await Connection.open(workers.base_url)
        connection.send(*use(key["token"]))
        await connection.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.storm([use(key["token"])] * 300, answers))
        for _ in range(gone):
            group.create_task(send_and_hang_up())
    assert outcomes(answers) == fleet.everywhere(ADMITTED)

    looks = count(1)

    async def is_counted() -> bool:
        """Return whether the workers have written all that the limiter has counted, including this request."""
        look = await fleet.manage(0, *use(key["token"]))
        used, most = limit - look.body["remaining"], 300 + gone + next(looks)
        hours = (await fleet.manage(0, "GET", f"/api-keys/{key['id']}/usage?hours=1", owner)).body["items"]
        assert hours[0]["admitted"] <= most
        return bool(300 < used == hours[0]["admitted"])  # more is used while other workers have leases

    await until(is_counted)
