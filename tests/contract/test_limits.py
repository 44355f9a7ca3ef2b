"""Several limits of a key and of its owner: all or nothing, headers, bodies, defaults and invalid input."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import insert

from fastapi_keyauth import KeyAuthSettings
from fastapi_keyauth.errors import InvalidField, SetupError
from fastapi_keyauth.store.tables import OwnerRow, table
from tests.helpers.stage import LEFT_OF_THE_HOUR_S, OWNER, OpenScene, Scene, code_of

MINUTE = {"name": "burst", "limit": 3, "per": "minute"}
HOUR = {"name": "hour", "limit": 5, "per": "hour"}
TOKENS = {"name": "tokens", "limit": 100, "per": "day", "unit": "tokens"}


async def set_owner(scene: Scene, **values: Any) -> None:
    """Write the row of an owner, and announce it."""
    row = {"prefix": "ka", "owner_id": OWNER, "created_at": scene.clock.moment(), "updated_at": scene.clock.moment()}
    async with scene.auth._parts.database.write() as connection:
        await connection.execute(insert(table(OwnerRow)).values(**{**row, **values}))
    await scene.auth._parts.outbox.publish("", OWNER, None)


async def test_every_limit_has_room_or_nothing_is_charged(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(limits=[MINUTE, HOUR])
        assert await scene.spend(key.token, 4) == [200, 200, 200, 429]
        scene.clock.advance(60)
        assert await scene.spend(key.token, 3) == [200, 200, 429]
        refused = await scene.get(token=key.token)
        assert refused.json()["violated-policies"] == ["hour"]
        assert refused.json()["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert int(refused.headers["retry-after"]) == LEFT_OF_THE_HOUR_S - 60


async def test_headers_have_an_item_for_each_limit(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"], rate_limit_headers="both") as scene:
        key = await scene.key(limits=[HOUR, TOKENS])
        await set_owner(scene, limits=[{"name": "day", "limit": 50, "per": "day"}])
        answer = await scene.get(token=key.token)
        left = int(answer.headers["ratelimit"].rpartition("t=")[2])
        assert answer.headers["ratelimit-policy"] == (
            '"hour";q=5;w=3600, "tokens";q=100;qu="tokens";w=86400, "owner-day";q=50;w=86400'
        )
        assert answer.headers["ratelimit"] == (
            f'"hour";r=4;t={LEFT_OF_THE_HOUR_S}, "tokens";r=100;t={left}, "owner-day";r=49;t={left}'
        )
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("5", "4")


async def test_legacy_headers_and_the_calling_key_show_the_limit_with_the_smallest_share_left(
    open_scene: OpenScene,
) -> None:
    async with open_scene(rate_limit_headers="legacy") as scene:
        key = await scene.key(
            limits=[{"name": "day", "limit": 100, "per": "day"}, {"name": "hour", "limit": 10, "per": "hour"}]
        )
        await scene.auth.owners.set(OWNER, limits=[{"name": "burst", "limit": 5, "per": 600}])
        answer = await scene.get("/api-keys/current", token=key.token)
        assert [answer.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining")] == ["5", "4"]
        assert answer.json()["remaining"] == 4
        ends_at = datetime.fromisoformat(answer.json()["reset_at"]).timestamp()
        assert (ends_at % 600, answer.headers["x-ratelimit-reset"]) == (0, f"{ends_at:.0f}")


async def test_a_month_has_the_length_of_the_current_one(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(limits=[{"name": "m", "limit": 9, "per": "month"}])
        answer = await scene.get(token=key.token)
        assert answer.headers["ratelimit-policy"] in {f'"m";q=9;w={days * 86_400}' for days in (28, 29, 30, 31)}


async def test_an_owner_has_one_limit_for_all_keys_even_after_revocation(open_scene: OpenScene) -> None:
    async with open_scene(default_owner_limits=[{"name": "day", "limit": 4, "per": "day"}]) as scene:
        first, second = await scene.key(), await scene.key()
        assert await scene.spend(first.token, 2) == [200, 200]
        await scene.auth.keys.revoke(first.id)
        third = await scene.key()
        assert await scene.spend(second.token, 1) + await scene.spend(third.token, 2) == [200, 200, 429]
        refused = await scene.get(token=third.token)
        assert refused.json()["violated-policies"] == ["owner-day"]
        other = await scene.key(owner_id="somebody else")
        assert await scene.spend(other.token) == [200]


async def test_a_suspended_owner_is_refused_from_the_announcement_on(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert await scene.spend(key.token, 2) == [200, 200]
        await set_owner(scene, suspended_at=scene.clock.moment())
        assert code_of(await scene.get(token=key.token)) == "owner_suspended"


async def test_changed_owner_limits_hold_from_the_announcement_on(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert await scene.spend(key.token, 2) == [200, 200]
        await set_owner(scene, limits=[{"name": "day", "limit": 1, "per": "day"}])
        assert await scene.spend(key.token, 2) == [200, 429]


async def test_a_key_has_exactly_what_it_was_given_or_the_defaults(open_scene: OpenScene) -> None:
    day = {"name": "day", "limit": 7, "per": "day"}
    async with open_scene(default_hourly_limit=9, default_limits=[day]) as scene:
        for fields, expected in (
            ({}, ["hour", "day"]),
            ({"hourly_limit": 2}, ["hour"]),
            ({"limits": [MINUTE]}, ["burst"]),
            ({"limits": [MINUTE], "hourly_limit": 2}, ["hour", "burst"]),
            ({"limits": []}, []),
        ):
            key = await scene.key(**fields)
            assert [limit.name for limit in key.row.limits] == expected
            assert key.row.hourly_limit == (None if "hour" not in expected else 9 if not fields else 2)
        assert "ratelimit" not in (await scene.get(token=key.token)).headers


async def test_changing_the_number_keeps_what_was_used_and_another_name_starts_a_new_count(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key(limits=[HOUR])
        await scene.spend(key.token, 4)
        await scene.auth.keys.update(key.id, limits=[{**HOUR, "limit": 6}])
        assert await scene.spend(key.token, 3) == [200, 200, 429]
        await scene.auth.keys.update(key.id, limits=[{**HOUR, "limit": 6, "name": "new"}])
        assert await scene.spend(key.token) == [200]


async def test_a_list_replaces_the_short_form_and_the_short_form_its_limit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=5)
        changed = await scene.auth.keys.update(key.id, limits=[])
        assert (changed.limits, changed.hourly_limit) == ((), None)
        changed = await scene.auth.keys.update(key.id, limits=[MINUTE, HOUR])
        changed = await scene.auth.keys.update(key.id, hourly_limit=8)
        assert [(limit.name, limit.limit) for limit in changed.limits] == [("hour", 8), ("burst", 3)]
        changed = await scene.auth.keys.update(key.id, hourly_limit=None, limits=None)
        assert changed.hourly_limit == 1000


async def test_the_calling_key_sees_every_limit(open_scene: OpenScene) -> None:
    async with open_scene(default_owner_limits=[{"name": "day", "limit": 40, "per": "day"}]) as scene:
        key = await scene.key(limits=[HOUR])
        shown = (await scene.get("/api-keys/current", token=key.token)).json()
        assert shown["limits"] == [{**HOUR, "unit": "requests", "algorithm": "fixed_window"}]
        states = {state["name"]: state["remaining"] for state in shown["limit_states"]}
        assert states == {"hour": 4, "owner-day": 39}
        assert shown["remaining"] == 4


@pytest.mark.parametrize(
    "limits",
    [
        [HOUR, HOUR],
        [{**HOUR, "name": f"n{i}"} for i in range(9)],
        [{**HOUR, "per": "week"}],
        [{**HOUR, "per": 0}],
        [{**HOUR, "per": 31_622_401}],
        [{**HOUR, "per": True}],
        [{**HOUR, "limit": 0}],
        [{**HOUR, "limit": 1_000_000_001}],
        [{**HOUR, "limit": "5"}],
        [{**HOUR, "name": "Upper"}],
        [{**HOUR, "name": "x" * 33}],
        [{**HOUR, "unit": "unknown"}],
        [{**HOUR, "algorithm": "leaky"}],
        [{**HOUR, "more": 1}],
        [{"name": "a"}],
        "hour",
        {"hour": 5},
    ],
)
async def test_invalid_limits_get_a_422_that_names_the_field(open_scene: OpenScene, limits: Any) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        for scopes in ("* admin", "*"):
            caller = await scene.caller("session", scopes)
            for method, path, body in (
                ("POST", "/api-keys", {"name": "n", "limits": limits}),
                ("PATCH", f"/api-keys/{key.id}", {"limits": limits}),
            ):
                answer = await scene.send(method, path, json=body, **caller)
                assert answer.status_code == 422
                assert answer.json()["detail"][0]["loc"][:2] == ["body", "limits"]
        with pytest.raises(InvalidField) as invalid:
            await scene.auth.keys.update(key.id, limits=limits)
        assert invalid.value.field == "limits"


async def test_no_caller_without_admin_grants_more_than_the_defaults(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=10, units=["tokens"]) as scene:
        session = await scene.caller("session", "*")
        key = await scene.key()
        for limits, status in (
            ([], 403),
            ([MINUTE], 403),
            ([{**HOUR, "limit": 11}], 403),
            ([TOKENS], 403),
            ([MINUTE, HOUR], 200),
            ([{**HOUR, "per": "day"}], 200),
        ):
            created = await scene.send("POST", "/api-keys", json={"name": "n", "limits": limits}, **session)
            assert created.status_code == (201 if status == 200 else status)
            changed = await scene.send("PATCH", f"/api-keys/{key.id}", json={"limits": limits}, **session)
            assert changed.status_code == status
        admin = await scene.caller("session", "* admin")
        freed = await scene.send("PATCH", f"/api-keys/{key.id}", json={"limits": []}, **admin)
        assert (freed.status_code, freed.json()["limits"]) == (200, [])


async def test_a_key_grants_no_more_than_its_own_limits(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        caller = await scene.caller("key", "* keys:write", limits=[{**HOUR, "limit": 50}, {**MINUTE, "limit": 30}])
        for number, status in ((40, 403), (30, 201)):  # 40 requests in one minute would be more than its own 30
            body = {"name": "n", "hourly_limit": number}
            assert (await scene.send("POST", "/api-keys", json=body, **caller)).status_code == status
        by_default = await scene.send("POST", "/api-keys", json={"name": "n"}, **caller)
        assert {limit["name"]: limit["limit"] for limit in by_default.json()["limits"]} == {"hour": 50, "burst": 30}


@pytest.mark.parametrize(
    "settings",
    [
        {"default_limits": [HOUR]},  # beside default_hourly_limit, which is the same limit
        {"default_limits": [MINUTE, MINUTE]},
        {"default_limits": [{**MINUTE, "name": f"n{i}"} for i in range(8)]},
        {"default_limits": [TOKENS]},
        {"default_owner_limits": [{**HOUR, "per": "week"}]},
        {"default_owner_limits": "not JSON"},
        {"units": ["Tokens!"]},
        {"reservation_ttl_s": 0},
    ],
)
def test_limits_that_cannot_be_valid_stop_the_start_with_one_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(SetupError) as refused:
        KeyAuthSettings(_env_file=None, **settings)
    assert str(refused.value).startswith("Setting ")
    assert "\n" not in str(refused.value)
