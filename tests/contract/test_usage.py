"""Section 13: usage by owner, key, unit, hour and day; reports, and closed days for a billing system."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import InvalidField, KeyAuth, KeyNotFound, KeyPrincipal, SessionPrincipal
from tests.helpers.stage import Clock, Issued, OpenScene, Scene, code_of
from tests.helpers.waiting import until

CLOSED_WITHIN_S = 3600
ADMIN = ("*", "admin")
TODAY = date(2026, 11, 10)


@pytest.fixture
def clock() -> Clock:
    """A clock that starts after noon of `TODAY`."""
    clock = Clock()
    clock.now = datetime(TODAY.year, TODAY.month, TODAY.day, 12, 20, tzinfo=UTC).timestamp()
    return clock


def add_routes(app: FastAPI, auth: KeyAuth) -> None:
    @app.get("/draw", dependencies=[Depends(auth.require(cost={"images": 4}))])
    async def draw() -> None: ...

    @app.get("/chat")
    async def chat(key: Annotated[KeyPrincipal, Depends(auth.require_key)], used: int) -> None:
        async with auth.reserve(key, tokens=50) as hold:
            if used >= 0:
                await hold.settle(tokens=used)
                await hold.settle(tokens=used)


async def end_day(scene: Scene, days: int = 1) -> None:
    """Advance the clock to an hour after the end of the day, and have its usage closed."""
    today = scene.clock.moment().date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=days)
    scene.clock.now = midnight.timestamp() + CLOSED_WITHIN_S
    await scene.auth._parts.usage.flush()
    await scene.auth._parts.day_closer.close_due_days()


async def report(scene: Scene, query: str, by: str = "day", **caller: Any) -> list[dict[str, Any]]:
    answer = await scene.get(f"/api-keys/usage?by={by}&{query}", **(caller or await scene.caller("session", "*")))
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def two_keys(scene: Scene) -> tuple[Issued, Issued]:
    """Return two keys, used three times and once on the first day, the first one once more on the second."""
    first, second = await scene.key(name="first"), await scene.key(name="second", hourly_limit=1)
    assert await scene.spend(first.token, 3) == [200] * 3
    assert await scene.spend(second.token, 2) == [200, 429]
    await end_day(scene)
    assert await scene.spend(first.token, 1) == [200]
    return first, second


NOVEMBER = "from=2026-11-01&to=2026-12-01"


async def test_units_with_and_without_a_limit_are_counted_by_the_hour(open_scene: OpenScene) -> None:
    async with open_scene(units=["images", "tokens"]) as scene:
        add_routes(scene.app, scene.auth)
        key = await scene.key(limits=[{"name": "images", "limit": 6, "per": "day", "unit": "images"}])
        answers = [(await scene.get("/draw", token=key.token)).status_code for _ in range(2)]
        assert answers == [200, 429]
        for used in (30, 70, -1):  # less than was reserved, more, and never settled
            assert (await scene.get(f"/chat?used={used}", token=key.token)).status_code == 200
        session = await scene.session()
        [hour] = (await scene.get(f"/api-keys/{key.id}/usage?hours=1", bearer=session)).json()["items"]
        units = {"requests": 4, "images": 4, "tokens": 100}
        assert hour == {"hour": "2026-11-10T12:00:00Z", "admitted": 4, "refused": 1, "units": units}
        [same] = await scene.auth.keys.usage(key.id, hours=1)
        assert (same.admitted, same.refused, dict(same.units)) == (4, 1, units)


async def test_reserved_units_count_in_the_hour_in_which_they_are_settled(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key = await scene.key()
        admitted = await scene.auth.keys.get(key.id)
        principal = KeyPrincipal(
            admitted.id, "k", admitted.owner_id, "live", frozenset("*"), {}, None, None, None, None
        )
        hold = await scene.auth.reserve(principal, tokens=50)
        scene.clock.to_next_hour()
        await hold.settle(tokens=20)
        hours = await scene.auth.keys.usage(key.id, hours=2)
        assert [hour.units.get("tokens", 0) for hour in hours] == [0, 20]


async def test_a_report_by_day_month_key_and_unit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        first, second = await two_keys(scene)
        assert await report(scene, NOVEMBER) == [
            {"day": "2026-11-10", "units": {"requests": 4}, "refused": 1, "closed": True},
            {"day": "2026-11-11", "units": {"requests": 1}, "refused": 0, "closed": False},
        ]
        assert await report(scene, NOVEMBER, "month") == [
            {"month": "2026-11", "units": {"requests": 5}, "refused": 1, "closed": False}
        ]
        assert await report(scene, "from=2026-11-10&to=2026-11-11", "key") == sorted(
            (
                {"key_id": first.id, "units": {"requests": 3}, "refused": 0, "closed": True},
                {"key_id": second.id, "units": {"requests": 1}, "refused": 1, "closed": True},
            ),
            key=lambda item: str(item["key_id"]),
        )
        assert await report(scene, NOVEMBER, "unit") == [
            {"unit": "requests", "units": {"requests": 5}, "refused": 1, "closed": False}
        ]
        [item] = await report(scene, f"from=2026-11-10&to=2026-11-11&key_id={second.id}")
        assert (item["units"], item["refused"]) == ({"requests": 1}, 1)


async def test_a_report_from_code_is_that_of_the_route(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        first, _ = await two_keys(scene)
        of_first = await scene.auth.usage.report(from_=TODAY, to="2026-11-12", key_id=first.id)
        assert [(item.day, dict(item.units), item.closed) for item in of_first] == [
            (TODAY, {"requests": 3}, True),
            (TODAY + timedelta(days=1), {"requests": 1}, False),
        ]
        assert len(await scene.auth.usage.report(TODAY, "2026-11-12", "key", owner_id=first.row.owner_id)) == 2
        assert len(await scene.auth.usage.report(TODAY, "2026-11-12", "key", owner_id="somebody else")) == 0
        with pytest.raises(KeyNotFound):
            await scene.auth.usage.report(TODAY, "2026-11-12", owner_id="somebody else", key_id=first.id)
        with pytest.raises(InvalidField, match="by"):
            await scene.auth.usage.report(TODAY, "2026-11-12", by="week")  # type: ignore[arg-type]


async def test_a_day_is_closed_by_itself_within_an_hour_and_stays(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        await scene.spend(key.token, 2)
        tomorrow = datetime(2026, 11, 11, tzinfo=UTC).timestamp()
        scene.clock.now = tomorrow + 1
        await scene.auth._parts.day_closer.close_due_days()
        [item] = await report(scene, "from=2026-11-10&to=2026-11-11")
        assert not item["closed"]
        scene.clock.now = tomorrow + CLOSED_WITHIN_S

        async def is_closed() -> bool:
            [item] = await report(scene, "from=2026-11-10&to=2026-11-11")
            return item["closed"] is True

        await until(is_closed)
        await scene.spend(key.token, 5)
        assert await report(scene, "from=2026-11-10&to=2026-11-11") == [
            {"day": "2026-11-10", "units": {"requests": 2}, "refused": 0, "closed": True}
        ]


async def test_a_month_is_closed_once_all_its_days_are(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        await scene.spend((await scene.key()).token, 1)
        await end_day(scene, days=20)
        query = "from=2026-11-10&to=2026-12-02"
        assert [(item["month"], item["closed"]) for item in await report(scene, query, "month")] == [("2026-11", False)]
        await end_day(scene)
        assert [(item["month"], item["closed"]) for item in await report(scene, query, "month")] == [
            ("2026-11", True),
            ("2026-12", False),
        ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-11-02&to=2026-11-01", "to"),
        ("from=2026-11-02&to=2026-11-02", "to"),
        ("from=1969-12-31&to=2026-11-02", "from"),
        ("from=2000-01-01&to=2026-11-02", "to"),
        ("from=2026-02-30", "from"),
        ("from=2026-W48-1", "from"),
        ("from=yesterday", "from"),
        ("to=2026-11-02T00:00:00Z", "to"),
        ("by=week", "by"),
        ("by=", "by"),
        ("format=xml", "format"),
        ("form=csv", "form"),
    ],
)
async def test_an_invalid_report_names_the_field(open_scene: OpenScene, query: str, field: str) -> None:
    async with open_scene() as scene:
        answer = await scene.get(f"/api-keys/usage?{query}", bearer=await scene.session())
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["loc"] == ["query", field]


async def test_hours_beyond_those_that_are_kept_are_invalid(open_scene: OpenScene) -> None:
    async with open_scene(usage_hours_kept=48) as scene:
        key, session = await scene.key(), await scene.session()
        answer = await scene.get(f"/api-keys/{key.id}/usage?hours=49", bearer=session)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "hours"]
        assert (await scene.get(f"/api-keys/{key.id}/usage?hours=48", bearer=session)).status_code == 200


async def test_report_of_the_last_month_that_a_date_can_have_is_empty(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for by in ("day", "month", "key", "unit"):
            assert await report(scene, "from=9999-12-01&to=9999-12-31", by) == []


async def test_callers_see_the_usage_of_keys_that_they_may_read(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        mine, other = await scene.key(owner_id="ada"), await scene.key(owner_id="bob")
        await scene.spend(mine.token, 1)
        await scene.spend(other.token, 2)
        query = "from=2026-11-10&to=2026-11-11"
        for kind, scopes, seen in (("session", "*", 1), ("key", "keys:read", 2), ("session", "admin", 4)):
            caller = await scene.caller(kind, scopes, user_id="ada")
            [item] = await report(scene, query, **caller)
            assert item["units"]["requests"] == seen, kind  # a key's own requests count too
        ada = await scene.caller("session", "*", user_id="ada")
        assert code_of(await scene.get(f"/api-keys/usage?{query}&key_id={other.id}", **ada)) == "not_found"
        assert code_of(await scene.get(f"/api-keys/usage?{query}&key_id=no-key", **ada)) == "not_found"
        assert code_of(await scene.get(f"/api-keys/usage?{query}&owner_id=bob", **ada)) == "insufficient_scope"
        admin = await scene.caller("session", "admin")
        [item] = await report(scene, f"{query}&owner_id=bob", **admin)
        assert item["units"]["requests"] == 2
        writer = await scene.caller("key", "keys:write", user_id="ada")
        assert code_of(await scene.get(f"/api-keys/usage?{query}", **writer)) == "insufficient_scope"
        assert code_of(await scene.get(f"/api-keys/usage?{query}")) == "missing_credentials"
        assert code_of(await scene.get("/api-keys/usage/batches", **ada)) == "insufficient_scope"


async def test_members_see_the_usage_of_the_owners_whose_keys_they_may_read(
    open_scene: OpenScene, make_client: Any
) -> None:
    async def owners_of(_user: SessionPrincipal) -> dict[str, list[str]]:
        return {"p": ["keys:read"], "q": ["keys:read", "keys:write"], "r": ["keys:write"]}

    async with open_scene() as scene:
        scene.auth._parts.callers._owners_of = owners_of
        keys = {owner: await scene.key(owner_id=owner) for owner in "pqr"}
        for number, key in enumerate(keys.values(), 1):
            await scene.spend(key.token, number)
        query = "from=2026-11-10&to=2026-11-11"
        assert (await report(scene, f"{query}&owner_id=q"))[0]["units"] == {"requests": 2}
        for owner in ("r", "s"):
            answer = await scene.get(f"/api-keys/usage?owner_id={owner}", bearer=await scene.session())
            assert code_of(answer) == "insufficient_scope"
        assert (await report(scene, f"{query}&key_id={keys['p'].id}"))[0]["units"] == {"requests": 1}
        hidden = await scene.get(f"/api-keys/usage?key_id={keys['r'].id}", bearer=await scene.session())
        assert code_of(hidden) == "not_found"


@pytest.mark.parametrize(
    ("owners", "seen"),
    [
        ({"p": ["keys:read"], "user-1": ["keys:read"]}, 2),
        ({"p": ["keys:read"]}, 1),
        ({"p": ["keys:write"]}, "insufficient_scope"),
        ({"p": ["keys:read"], "q": ["keys:read"]}, "owner_id"),
        ({}, "owner_id"),
    ],
)
async def test_report_that_names_no_owner_is_about_the_owner_that_a_list_of_keys_would_be_about(
    open_scene: OpenScene, owners: dict[str, list[str]], seen: object
) -> None:
    async def owners_of(_user: SessionPrincipal) -> dict[str, list[str]]:
        return owners

    async with open_scene() as scene:
        scene.auth._parts.callers._owners_of = owners_of
        for number, owner in enumerate(("p", "user-1", "q"), 1):
            await scene.spend((await scene.key(owner_id=owner)).token, number)
        answer = await scene.get(
            "/api-keys/usage?from=2026-11-10&to=2026-11-11", bearer=await scene.session(user_id="user-1")
        )
        if answer.status_code == 200:
            assert answer.json()["items"][0]["units"] == {"requests": seen}
        elif answer.status_code == 422:
            assert answer.json()["detail"][0]["loc"] == ["query", seen]
        else:
            assert code_of(answer) == seen


async def test_csv_has_a_header_and_a_line_for_each_item(open_scene: OpenScene) -> None:
    async with open_scene(units=["-tokens", "images"]) as scene:
        await two_keys(scene)
        session = await scene.session()
        answer = await scene.get(f"/api-keys/usage?{NOVEMBER}&format=csv", bearer=session)
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-12-01-day.csv"'
        assert answer.text.endswith("\r\n")
        assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
            ["day", "requests", "'-tokens", "images", "refused", "closed"],
            ["2026-11-10", "4", "0", "0", "1", "true"],
            ["2026-11-11", "1", "0", "0", "0", "false"],
        ]
        answer = await scene.get(f"/api-keys/usage?{NOVEMBER}&by=unit&format=csv", bearer=session)
        assert answer.text == "unit,units,refused,closed\r\nrequests,5,1,false\r\n"


async def test_closed_days_are_handed_out_in_batches(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        first, second = await two_keys(scene)
        admin = await scene.caller("session", "admin")
        items: list[Any] = []
        after = 0
        while True:
            answer = await scene.get(f"/api-keys/usage/batches?after={after}&limit=1", **admin)
            batch = answer.json()
            if not batch["items"]:
                assert batch["next_after"] is None
                break
            items += batch["items"]
            after = batch["next_after"]
        numbers = {item.pop("key_id"): item for item in items}
        ids = [item.pop("id") for item in items]
        assert ids == sorted(ids)
        day = {"day": "2026-11-10", "owner_id": first.row.owner_id, "unit": "requests"}
        assert numbers == {first.id: {**day, "units": 3}, second.id: {**day, "units": 1}}
        again = (await scene.get("/api-keys/usage/batches", **admin)).json()
        assert [item["id"] for item in again["items"]] == ids
        assert [item.id for item in await scene.auth.usage.batches(after=ids[0])] == ids[1:]
        for query, field in (("after=-1", "after"), ("limit=0", "limit"), ("after=99999999999999999999", "after")):
            answer = await scene.get(f"/api-keys/usage/batches?{query}", **admin)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["query", field]


async def test_an_erased_owner_is_in_no_report_and_its_sums_stay(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(owner_id="ada@example.com")
        await scene.spend(key.token, 3)
        await end_day(scene)
        await scene.spend(key.token, 2)
        await scene.auth.owners.erase("ada@example.com")
        await end_day(scene)
        admin = await scene.caller("session", "admin")
        totals = [item["units"]["requests"] for item in await report(scene, "from=2026-11-10&to=2026-11-12", **admin)]
        assert totals == [3, 2]
        answer = await scene.get("/api-keys/usage/batches", **admin)
        assert [item["units"] for item in answer.json()["items"]] == [3, 2]
        assert "ada@example.com" not in answer.text
        assert len({item["owner_id"] for item in answer.json()["items"]}) == 1
        assert await report(scene, f"{NOVEMBER}&owner_id=ada@example.com", "key", **admin) == []
