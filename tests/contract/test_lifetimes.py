"""The policy for lifetimes: keys that end by themselves, unused keys, and the events about both."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fastapi_keyauth import AuthEvent, InvalidField, KeyAuth, KeyAuthSettings
from fastapi_keyauth.store import lifetimes
from tests.conftest import Stack
from tests.helpers.stage import Clock, OpenScene, code_of

DAY_S = 86_400


async def create(scene: Any, **body: Any) -> Any:
    bearer = body.pop("bearer", None) or await scene.session()
    return await scene.send("POST", "/api-keys", bearer=bearer, json={"name": "k", **body})


async def test_key_without_an_expiry_gets_the_default(open_scene: OpenScene) -> None:
    async with open_scene(default_key_ttl_s=3600, max_key_ttl_s=7200) as scene:
        answer = await create(scene)
        assert answer.json()["expires_at"] == scene.clock.rfc3339(3600).replace("+00:00", "Z")
        assert (await scene.key()).row.expires_at == scene.clock.moment(3600)


async def test_key_without_an_expiry_gets_the_maximum_without_a_default(open_scene: OpenScene) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        answer = await create(scene)
        assert answer.json()["expires_at"] == scene.clock.rfc3339(7200).replace("+00:00", "Z")
        scene.clock.advance(7200)
        refused = await scene.get(token=answer.json()["token"])
        assert (refused.status_code, code_of(refused)) == (401, "expired_api_key")


@pytest.mark.parametrize(
    ("field", "seconds", "status"),
    [("expires_in_s", 7200, 201), ("expires_in_s", 7201, 422), ("expires_at", 7200, 201), ("expires_at", 7201, 422)],
)
async def test_expiry_beyond_the_maximum_is_refused_by_its_field(
    open_scene: OpenScene, field: str, seconds: int, status: int
) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        value = seconds if field == "expires_in_s" else scene.clock.rfc3339(seconds)
        answer = await create(scene, **{field: value})
        assert answer.status_code == status
        if status == 422:
            assert answer.json()["detail"][0]["loc"] == ["body", field]
            assert "7200" in answer.json()["detail"][0]["msg"]


async def test_change_beyond_the_maximum_is_refused(open_scene: OpenScene) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        bearer = await scene.session()
        path = f"/api-keys/{(await create(scene, bearer=bearer)).json()['id']}"
        scene.clock.advance(60)
        for value, status in (
            (scene.clock.rfc3339(7200 - 60), 200),
            (scene.clock.rfc3339(7200 - 59), 422),
            (None, 422),
        ):
            answer = await scene.send("PATCH", path, bearer=bearer, json={"expires_at": value})
            assert answer.status_code == status, value
        with pytest.raises(InvalidField, match="max_key_ttl_s"):
            await scene.auth.keys.create(owner_id="a", name="k", expires_at=scene.clock.moment(8000))


async def test_only_admin_exempts_a_key(open_scene: OpenScene) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        answer = await create(scene, exempt_from_policy=True)
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        admin = await scene.session(scopes=["admin", "*"])
        created = (await create(scene, bearer=admin, exempt_from_policy=True)).json()
        assert created["expires_at"] is None
        path = f"/api-keys/{created['id']}"
        own = await scene.send("PATCH", path, bearer=await scene.session(), json={"exempt_from_policy": False})
        assert own.status_code == 403
        limited = await scene.send("PATCH", path, bearer=admin, json={"exempt_from_policy": False})
        assert limited.json()["expires_at"] == scene.clock.rfc3339(7200).replace("+00:00", "Z")
        history = (await scene.get(f"{path}/events", bearer=admin)).json()["items"]
        assert history[0]["changes"]["exempt_from_policy"] == {"from": True, "to": False}


async def test_only_admin_extends_an_exempt_key_beyond_the_policy(open_scene: OpenScene) -> None:
    """Others keep what `admin` granted, as with a limit above the default: they may rotate and change such a key."""
    async with open_scene(max_key_ttl_s=7200) as scene:
        owner, admin = await scene.session(), await scene.session(scopes=["admin", "*"])
        body = {"exempt_from_policy": True, "expires_at": scene.clock.rfc3339(50_000)}
        path = f"/api-keys/{(await create(scene, bearer=admin, **body)).json()['id']}"
        rotated = await scene.send("POST", f"{path}/rotate", bearer=owner)
        assert (rotated.status_code, rotated.json()["exempt_from_policy"]) == (201, True)
        for bearer, expires_at, status in (
            (owner, None, 422),
            (owner, scene.clock.rfc3339(50_001), 422),
            (owner, scene.clock.rfc3339(49_999), 200),
            (owner, scene.clock.rfc3339(50_000), 422),
            (owner, scene.clock.rfc3339(600), 200),
            (owner, scene.clock.rfc3339(7200), 200),
            (admin, None, 200),
            (owner, None, 200),  # no change
        ):
            answer = await scene.send("PATCH", path, bearer=bearer, json={"expires_at": expires_at, "name": "renamed"})
            assert answer.status_code == status, (expires_at, answer.text)


@pytest.mark.parametrize("applies_to", ["new", "all"])
async def test_existing_keys_end_if_the_policy_applies_to_all(
    make_auth: Callable[..., KeyAuth], open_scene: OpenScene, applies_to: str
) -> None:
    async with open_scene() as before:
        old = await before.key()
        clock = before.clock
    clock.advance(DAY_S)
    async with open_scene(max_key_ttl_s=DAY_S, key_policy_applies_to=applies_to) as scene:
        answer = await scene.get(token=old.token)
        bearer = await scene.session()
        listed = (await scene.get("/api-keys?status=expired", bearer=bearer)).json()["items"]
        if applies_to == "all":
            assert (answer.status_code, code_of(answer)) == (401, "expired_api_key")
            assert [key["id"] for key in listed] == [old.id]
            assert (await scene.auth.owners.get("owner-1")).keys.expired == 1
        else:
            assert (answer.status_code, listed) == (200, [])


async def test_key_of_a_key_ends_by_the_sooner_of_both(open_scene: OpenScene) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        parent = await scene.key(scopes=["*", "keys:read", "keys:write"], expires_at=scene.clock.moment(600))
        answer = await scene.send("POST", "/api-keys", token=parent.token, json={"name": "child"})
        assert answer.json()["expires_at"] == scene.clock.rfc3339(600).replace("+00:00", "Z")


async def test_unused_keys_are_disabled_and_can_be_enabled_again(open_scene: OpenScene) -> None:
    async with open_scene(disable_unused_after_days=30) as scene:
        unused, used = await scene.key(), await scene.key()
        exempt = await scene.key(exempt_from_policy=True)
        scene.clock.advance(29 * DAY_S)
        assert (await scene.get(token=used.token)).status_code == 200
        await scene.auth._parts.usage.flush()
        scene.clock.advance(DAY_S)
        await scene.auth._parts.lifetimes.act()
        refused = await scene.get(token=unused.token)
        assert (refused.status_code, code_of(refused)) == (401, "disabled_api_key")
        assert [(await scene.get(token=key.token)).status_code for key in (used, exempt)] == [200, 200]
        (event, *_) = (await scene.auth.keys.events(unused.id)).items
        assert (event.event, event.actor, event.reason) == ("updated", "policy", "unused for 30 days")
        await scene.auth.keys.update(unused.id, enabled=True)
        await scene.auth._parts.lifetimes.act()
        assert (await scene.get(token=unused.token)).status_code == 200


async def test_unused_keys_without_a_policy_at_their_creation_are_left_alone(open_scene: OpenScene) -> None:
    async with open_scene() as before:
        old = await before.key()
        clock = before.clock
    clock.advance(40 * DAY_S)
    for applies_to, is_enabled in (("new", True), ("all", False)):
        async with open_scene(disable_unused_after_days=30, key_policy_applies_to=applies_to) as scene:
            await scene.auth._parts.lifetimes.act()
            assert (await scene.auth.keys.get(old.id)).enabled is is_enabled


async def test_events_about_the_end_of_a_key_are_sent_once_over_all_workers(stack: Stack) -> None:
    clock = Clock()
    seen: list[AuthEvent] = []

    async def remember(event: AuthEvent) -> None:
        if event.kind in ("expiring", "expired", "unused"):
            seen.append(event)

    def build() -> KeyAuth:
        cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "disable_unused_after_days": 100}
        settings = KeyAuthSettings(_env_file=None, **{**stack.settings, **cheap})
        return KeyAuth(settings, clock=clock, on_event=remember)

    async def act() -> list[tuple[str, int | None]]:
        """Let two workers act, one after the other, and return what was sent."""
        seen.clear()
        for _ in range(2):
            async with build() as worker:
                await worker._parts.lifetimes.act()
        return sorted((event.kind, event.days) for event in seen)

    async with build() as auth:
        created = await auth.keys.create(owner_id="a", name="k", expires_at=clock.moment(30 * DAY_S))
        short = await auth.keys.create(owner_id="a", name="k", expires_at=clock.moment(6 * DAY_S))
    assert await act() == []
    clock.advance(5 * DAY_S + 1)
    assert await act() == [("expiring", 1)]
    assert seen[0].key_id == short.key.id
    assert seen[0].expires_at == short.key.expires_at
    clock.advance(DAY_S)
    assert await act() == [("expired", None)]
    clock.advance(17 * DAY_S)
    assert await act() == [("expiring", 7)]
    async with build() as auth:  # another expiry: its events are sent again
        await auth.keys.update(created.key.id, expires_at=clock.moment(20 * DAY_S))
    assert await act() == []
    clock.advance(13 * DAY_S)
    assert await act() == [("expiring", 7)]
    clock.advance(90 * DAY_S)
    assert await act() == [], "an end of long ago is no news, and an ended key is not disabled"


async def test_short_lived_keys_do_not_keep_the_end_of_others_from_being_announced(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round reads only some keys, and those that live no longer than the notice are not announced."""
    monkeypatch.setattr(lifetimes, "BATCH", 2)
    clock = Clock()
    seen: list[AuthEvent] = []
    settings = KeyAuthSettings(_env_file=None, **{**stack.settings, "argon2_time_cost": 1, "argon2_memory_kib": 8})
    async with KeyAuth(settings, clock=clock, on_event=seen.append) as auth:
        for _ in range(3):
            await auth.keys.create(owner_id="a", name="k", expires_at=clock.moment(3 * DAY_S))
        times = {"created_at": clock.moment(-30 * DAY_S), "expires_at": clock.moment(3 * DAY_S)}
        (other,) = (await auth.keys.import_keys([{"owner_id": "b", "name": "k", "hash": "0" * 64, **times}])).key_ids
        for _ in range(3):
            await auth._parts.lifetimes.act()
    assert [(event.key_id, event.days) for event in seen if event.kind == "expiring"] == [(other, 7)]


async def test_unused_is_sent_once(stack: Stack) -> None:
    clock = Clock()
    seen: list[AuthEvent] = []
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "disable_unused_after_days": 10}
    settings = KeyAuthSettings(_env_file=None, **{**stack.settings, **cheap})
    async with KeyAuth(settings, clock=clock, on_event=seen.append) as auth:
        created = await auth.keys.create(owner_id="a", name="k")
        clock.advance(10 * DAY_S)
        await auth._parts.lifetimes.act()
        await auth._parts.lifetimes.act()
    unused = [event for event in seen if event.kind == "unused"]
    assert [(event.key_id, event.owner_id, event.days) for event in unused] == [(created.key.id, "a", 10)]


async def test_imported_key_gets_the_maximum_from_its_import(open_scene: OpenScene) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        record = {"owner_id": "a", "name": "k", "hash": "0" * 64, "created_at": scene.clock.moment(-DAY_S)}
        (key_id,) = (await scene.auth.keys.import_keys([record])).key_ids
        key = await scene.auth.keys.get(key_id)
        assert key.expires_at is not None
        assert key.expires_at - scene.clock.moment() == timedelta(seconds=7200)
