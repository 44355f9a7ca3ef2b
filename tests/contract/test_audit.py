"""The audit: what a security review would ask about the keys."""

from collections.abc import Callable, Collection, Mapping

from fastapi_keyauth import KeyAuth, SessionPrincipal
from tests.helpers.stage import OpenScene

DAY_S = 86_400


async def test_audit_finds_what_a_review_would_ask_about(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=None) as scene:
        poor = await scene.key(scopes=["*", "admin"])
        good = await scene.key(
            scopes=["read"],
            hourly_limit=10,
            allowed_ips=["203.0.113.0/24"],
            expires_at=scene.clock.moment(400 * DAY_S),
        )
        assert (await scene.get(token=good.token)).status_code == 200
        found = await scene.auth.keys.audit()
        assert [item.finding for item in found if item.key_id == good.id] == []
        assert {item.finding for item in found if item.key_id == poor.id} == {
            "never_expires",
            "never_used",
            "no_limit",
            "all_scopes",
            "admin",
            "no_address_list",
        }
        scene.clock.advance(366 * DAY_S)
        aged = {item.finding for item in await scene.auth.keys.audit() if item.key_id == good.id}
        assert aged == {"unused", "old_secret"}


async def test_limit_of_the_owner_is_a_limit(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=None) as scene:
        await scene.key(owner_id="a")
        await scene.key(owner_id="b")
        await scene.auth.owners.set("a", limits=[{"name": "day", "limit": 9, "per": "day"}])
        found = await scene.auth.keys.audit()
        assert [item.owner_id for item in found if item.finding == "no_limit"] == ["b"]


async def test_imported_and_inactive_keys(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        record = {"owner_id": "a", "name": "k", "hash": "0" * 64, "last_used_at": "2026-01-31"}
        (imported,) = (await scene.auth.keys.import_keys([record])).key_ids
        revoked = await scene.key()
        await scene.auth.keys.revoke(revoked.id)
        found = await scene.auth.keys.audit()
        (detail,) = [item.detail for item in found if (item.key_id, item.finding) == (imported, "imported_secret")]
        assert detail.endswith("was not used since the import.")
        assert revoked.id not in {item.key_id for item in found}


async def test_creator_who_left_is_found(make_auth: Callable[..., KeyAuth]) -> None:
    members = {"ada": ["project"], "bob": []}

    async def owners_of(user: SessionPrincipal) -> Mapping[str, Collection[str]]:
        return dict.fromkeys(members[user.user_id], ("keys:read", "keys:write"))

    async with make_auth(owners_of=owners_of) as auth:
        kept = await auth.keys.acting_as("user:ada").create(owner_id="project", name="k")
        left = await auth.keys.acting_as("user:bob").create(owner_id="project", name="k")
        found = [item.key_id for item in await auth.keys.audit() if item.finding == "creator_not_member"]
        assert (found, kept.key.id in found) == ([left.key.id], False)


async def test_creator_whom_the_application_does_not_know_is_found(make_auth: Callable[..., KeyAuth]) -> None:
    async def owners_of(user: SessionPrincipal) -> Mapping[str, Collection[str]]:
        raise KeyError(user.user_id)

    async with make_auth(owners_of=owners_of) as auth:
        await auth.keys.acting_as("user:gone").create(owner_id="project", name="k")
        (found,) = [item for item in await auth.keys.audit() if item.finding == "creator_not_member"]
        assert "unknown" in found.detail


async def test_route_shows_each_caller_its_own_keys_page_by_page(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        mine = [(await scene.key()).id for _ in range(3)]
        other = await scene.key(owner_id="somebody-else")
        bearer = await scene.session()
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = (await scene.get(f"/api-keys/audit?limit=2{cursor and '&cursor=' + cursor}", bearer=bearer)).json()
            seen += dict.fromkeys(item["key_id"] for item in page["items"])
            cursor = page["next_cursor"]
        assert sorted(seen) == sorted(mine)
        admin = await scene.session("root", scopes=["admin"])
        everything = (await scene.get("/api-keys/audit", bearer=admin)).json()["items"]
        assert {item["key_id"] for item in everything} == {*mine, other.id}
        assert set(everything[0]) == {"finding", "key_id", "owner_id", "detail"}
        foreign = await scene.get("/api-keys/audit?owner_id=somebody-else", bearer=bearer)
        assert foreign.status_code == 403
