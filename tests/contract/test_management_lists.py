"""Section 7: the list with its filters and pages, usage per hour, and the events of a key."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.helpers.stage import HOME, OpenScene, Scene
from tests.helpers.tokens import secret_of
from tests.helpers.waiting import until

DAY_S = 86400
USAGE_IS_AT_MOST_S_OLD = 10
SAID_WITHIN_S = 12


async def ids_of(scene: Scene, session: str, **query: Any) -> list[str]:
    """Return the ids of one page, in its order."""
    answer = await scene.get(f"/api-keys?{urlencode(query)}", bearer=session)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def all_ids(scene: Scene, session: str, limit: int) -> list[str]:
    """Return the ids of all pages, following the cursors."""
    ids: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = (await scene.get(f"/api-keys?{urlencode(query)}", bearer=session)).json()
        assert len(page["items"]) <= limit
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return ids
        assert len(ids) < 100, "the pages do not end"
        query["cursor"] = page["next_cursor"]


async def test_the_owners_keys_come_newest_first(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        assert await ids_of(scene, session) == []
        made = []
        for number in range(4):
            made.append((await scene.key(name=f"key {number}")).id)
            await scene.key(owner_id="neighbour")
            scene.clock.advance(1.5)
        assert await ids_of(scene, session) == made[::-1]


@pytest.mark.parametrize("apart_s", [0, 1])
async def test_the_pages_hold_every_key_once(open_scene: OpenScene, apart_s: int) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        made = []
        for _ in range(7):
            made.append((await scene.key()).id)
            scene.clock.advance(apart_s)
        for limit in (1, 2, 3, 7, 8):
            ids = await all_ids(scene, session, limit)
            assert len(ids) == 7, limit
            assert set(ids) == set(made), limit
            assert not apart_s or ids == made[::-1], limit


async def test_a_key_created_between_two_pages_does_not_shift_others(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        made = []
        for _ in range(4):
            made.append((await scene.key()).id)
            scene.clock.advance(1)
        first = (await scene.get("/api-keys?limit=2", bearer=session)).json()
        await scene.key()
        query = urlencode({"limit": 2, "cursor": first["next_cursor"]})
        second = (await scene.get(f"/api-keys?{query}", bearer=session)).json()
        ids = [item["id"] for item in first["items"] + second["items"]]
        assert ids == made[::-1]


async def test_a_page_holds_fifty_by_default(open_scene: OpenScene) -> None:
    async with open_scene(max_keys_per_owner=1000) as scene:
        session = await scene.session()
        for number in range(52):
            await scene.key(name=f"key {number}")
        page = (await scene.get("/api-keys", bearer=session)).json()
        assert len(page["items"]) == 50
        assert page["next_cursor"] is not None
        assert len(await ids_of(scene, session, limit=200)) == 52
        beyond = await scene.get("/api-keys?limit=201", bearer=session)
        assert beyond.status_code in (200, 422)


async def test_keys_are_found_by_status(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        active = await scene.key(expires_at=scene.clock.moment(DAY_S))
        disabled, revoked = await scene.key(), await scene.key()
        expired = await scene.key(expires_at=scene.clock.moment(60))
        await scene.auth.keys.update(disabled.id, enabled=False)
        await scene.auth.keys.revoke(revoked.id)
        scene.clock.advance(61)
        expected = {
            "active": active.id,
            "disabled": disabled.id,
            "revoked": revoked.id,
            "expired": expired.id,
        }
        for status, key_id in expected.items():
            assert await ids_of(scene, session, status=status) == [key_id]
            one = (await scene.get(f"/api-keys/{key_id}", bearer=session)).json()
            assert one["status"] == status
        assert len(await ids_of(scene, session)) == 4
        assert set(await ids_of(scene, session, include_revoked="false")) == {active.id, disabled.id, expired.id}


async def test_keys_are_found_by_a_part_of_the_name(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        prod = await scene.key(name="prod-api-server")
        await scene.key(name="staging-worker")
        percent = await scene.key(name="100% sure_thing")
        assert await ids_of(scene, session, q="prod") == [prod.id]
        assert await ids_of(scene, session, q="api") == [prod.id]
        assert await ids_of(scene, session, q="%") == [percent.id]
        assert await ids_of(scene, session, q="_") == [percent.id]
        assert await ids_of(scene, session, q="nothing like it") == []


async def test_unused_keys_are_found(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        never_used, in_use = await scene.key(), await scene.key()
        scene.clock.advance(91 * DAY_S)
        await scene.key()
        assert await scene.spend(in_use.token) == [200]

        async def only_the_forgotten_one() -> bool:
            return await ids_of(scene, session, unused_for_days=90) == [never_used.id]

        await until(only_the_forgotten_one, SAID_WITHIN_S)
        assert await ids_of(scene, session, unused_for_days=92) == []


async def test_the_last_use_is_shown(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key()
        assert await scene.spend(key.token) == [200]

        async def is_told() -> bool:
            answer = await scene.get(f"/api-keys/{key.id}", bearer=session)
            row = answer.json()
            return row["last_used_at"] is not None and bool(row["secrets"][0]["last_used_at"])

        await until(is_told, SAID_WITHIN_S)


async def test_usage_has_units_and_refusals_per_hour(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(hourly_limit=3, scopes=["items:write"])
        assert (await scene.get("/items", token=key.token)).status_code == 403
        assert await scene.spend(key.token, 4) == [200, 200, 429, 429]
        scene.clock.to_next_hour(60)
        assert await scene.spend(key.token, 1) == [200]
        await scene.get(token=key.token[:-1])
        scene.clock.advance(USAGE_IS_AT_MOST_S_OLD)

        async def is_told() -> bool:
            answer = await scene.get(f"/api-keys/{key.id}/usage?hours=24", bearer=session)
            items = answer.json()["items"]
            busy = [item for item in items if item["admitted"] or item["refused"]]
            busy.sort(key=lambda item: str(item["hour"]))
            counted = [(item["admitted"], item["refused"]) for item in busy]
            return counted == [(3, 2), (1, 0)]

        await until(is_told, SAID_WITHIN_S)


async def test_usage_includes_hours_with_nothing(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        for hours in (1, 24, 168):
            answer = await scene.get(f"/api-keys/{key.id}/usage?hours={hours}", bearer=session)
            items = answer.json()["items"]
            assert len(items) in (hours, hours + 1), hours
            assert all(set(item) >= {"hour", "admitted", "refused"} for item in items), hours
            assert len({item["hour"] for item in items}) == len(items), hours
            assert all((item["admitted"], item["refused"]) == (0, 0) for item in items), hours


async def test_usage_covers_a_day_by_default_and_a_week_at_most(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        path = f"/api-keys/{key.id}/usage"
        answer = await scene.get(path, bearer=session)
        assert len(answer.json()["items"]) in (24, 25)
        answer = await scene.get(f"{path}?hours=169", bearer=session)
        assert answer.status_code == 422 or len(answer.json()["items"]) in (168, 169)


async def test_events_name_actor_change_and_address(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        body = {"name": "audited"}
        made = (await scene.send("POST", "/api-keys", bearer=session, json=body)).json()
        path = f"/api-keys/{made['id']}"
        scene.clock.advance(5)
        await scene.send("PATCH", path, bearer=session, json={"name": "renamed"})
        scene.clock.advance(5)
        rotated = await scene.send("POST", f"{path}/rotate", bearer=session, json={"overlap_s": 9})
        scene.clock.advance(5)
        await scene.send("DELETE", path, bearer=session)
        answer = await scene.get(f"{path}/events", bearer=session)
        assert answer.status_code == 200
        events = answer.json()["items"]
        assert answer.json()["next_cursor"] is None
        assert len(events) >= 4
        for event in events:
            assert set(event) >= {"event", "actor", "address", "at", "changes"}
            assert "owner-1" in json.dumps(event["actor"])
            assert event["address"] == HOME
        times = [event["at"] for event in events]
        assert times == sorted(times, reverse=True)
        renamed = [event for event in events if "renamed" in json.dumps(event["changes"])]
        assert len(renamed) == 1
        assert "name" in json.dumps(renamed[0]["changes"])
        for token in (made["token"], rotated.json()["token"]):
            assert secret_of(token) not in answer.text


async def test_events_come_in_pages(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        path = f"/api-keys/{key.id}"
        for number in range(6):
            scene.clock.advance(1)
            await scene.send("PATCH", path, bearer=session, json={"name": f"name-{number}"})
        names: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        for _ in range(20):
            answer = await scene.get(f"{path}/events?{urlencode(query)}", bearer=session)
            page = answer.json()
            text = [json.dumps(event["changes"]) for event in page["items"]]
            names += [name for name in text if "name-" in name]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert len(names) == 6
        assert "name-5" in names[0]


async def test_an_unchanged_refused_or_foreign_patch_leaves_no_event_of_success(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        path = f"/api-keys/{key.id}"
        foreign = await scene.session("neighbour")
        await scene.send("PATCH", path, bearer=foreign, json={"name": "stolen"})
        await scene.send("PATCH", path, bearer=session, json={"scopes": ["admin"]})
        answer = await scene.get(f"{path}/events", bearer=session)
        assert "stolen" not in answer.text
        assert "admin" not in answer.text
