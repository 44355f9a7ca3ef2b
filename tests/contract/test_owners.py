"""Section 10: the owners of keys."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from fastapi_keyauth import InvalidField, SessionPrincipal
from fastapi_keyauth.http.routers.callers import RequestAuthority
from fastapi_keyauth.keys.turns import PLACES
from fastapi_keyauth.store.tables import metadata
from tests.helpers.keys import Gate, store_of
from tests.helpers.stage import ELSEWHERE, OpenScene, Scene, code_of
from tests.helpers.waiting import until

ADMIN = ["*", "admin"]
STATE = {"remaining", "reset_at"}
ZERO = {"active": 0, "disabled": 0, "expired": 0, "revoked": 0}


async def admin_of(scene: Scene) -> dict[str, Any]:
    return {"bearer": await scene.session("root", ADMIN), "address": ELSEWHERE}


async def test_an_owner_exists_without_a_row_and_counts_its_keys(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = [await scene.key(owner_id="p/1") for _ in range(4)]
        await scene.auth.keys.update(keys[0].id, enabled=False)
        await scene.auth.keys.revoke(keys[1].id)
        await scene.auth.keys.update(keys[2].id, expires_at=scene.clock.moment(60))
        scene.clock.advance(61)
        admin = await admin_of(scene)
        shown = await scene.get("/api-keys/owners/p/1", **admin)
        assert shown.json() == {
            "owner_id": "p/1",
            "name": None,
            "suspended_at": None,
            "reason": None,
            "limits": [],
            "keys": {"active": 1, "disabled": 1, "expired": 1, "revoked": 1},
        }
        assert (await scene.get("/api-keys/owners/nobody", **admin)).json()["keys"] == ZERO


async def test_what_is_set_stays_until_it_is_set_again(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        admin = await admin_of(scene)
        limits = [{"name": "day", "limit": 5, "per": "day"}]
        put = await scene.send("PUT", "/api-keys/owners/p", json={"limits": limits}, **admin)
        assert put.status_code == 200, put.text
        await scene.send("PUT", "/api-keys/owners/p", json={"name": "Project"}, **admin)
        key = await scene.key(owner_id="p")
        await scene.spend(key.token, 2)
        shown = (await scene.get("/api-keys/owners/p", **admin)).json()
        [state] = shown["limits"]
        assert shown["name"] == "Project"
        assert {name: state[name] for name in ("name", "limit", "per", "unit", "remaining")} == {
            "name": "day",
            "limit": 5,
            "per": "day",
            "unit": "requests",
            "remaining": 3,
        }
        scene.auth.require(cost=5)  # another route of the application costs more
        for _ in range(3):  # it costs nothing
            current = await scene.get("/api-keys/owners/current", token=key.token)
            assert (current.status_code, current.json()["limits"][0]["remaining"]) == (200, 3)
        await scene.send("PUT", "/api-keys/owners/p", json={"limits": None}, **admin)
        assert (await scene.get("/api-keys/owners/p", **admin)).json()["limits"] == []


async def test_limits_that_were_read_can_be_set_again_and_keep_their_algorithm(open_scene: OpenScene) -> None:
    async with open_scene(rate_limit_algorithm="sliding_window") as scene:
        admin = await admin_of(scene)
        limits = [
            {"name": "day", "limit": 5, "per": "day", "unit": "requests", "algorithm": "fixed_window"},
            {"name": "burst", "limit": 9, "per": 600, "unit": "requests", "algorithm": "sliding_window"},
            {"name": "month", "limit": 90, "per": "month", "unit": "requests"},  # a month is always fixed
            {"name": "hour", "limit": 30, "per": "hour", "unit": "requests"},  # as in the setting
        ]
        await scene.send("PUT", "/api-keys/owners/p", json={"limits": limits}, **admin)
        shown = (await scene.get("/api-keys/owners/p", **admin)).json()["limits"]
        assert [limit["algorithm"] for limit in shown] == [
            "fixed_window",
            "sliding_window",
            "fixed_window",
            "sliding_window",
        ]
        read = [{name: value for name, value in limit.items() if name not in STATE} for limit in shown]
        again = await scene.send("PUT", "/api-keys/owners/p", json={"limits": read}, **admin)
        assert (again.status_code, again.json()["limits"]) == (200, shown)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"limits": [{"name": "a", "limit": 0, "per": "day"}]}, "limits"),
        ({"limits": [{"name": "a", "limit": 1, "per": "week"}]}, "limits"),
        ({"limits": [{"name": "a", "limit": 1, "per": "day"}] * 2}, "limits"),
        ({"name": ""}, "name"),
        ({"nmae": "x"}, "nmae"),
    ],
)
async def test_invalid_fields_are_named(open_scene: OpenScene, body: dict[str, Any], field: str) -> None:
    async with open_scene() as scene:
        answer = await scene.send("PUT", "/api-keys/owners/p", json=body, **await admin_of(scene))
        assert (answer.status_code, answer.json()["detail"][0]["loc"][:2]) == (422, ["body", field])


async def test_a_suspended_owner_is_refused_until_it_is_resumed(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=2) as scene:
        admin = await admin_of(scene)
        key = await scene.key()
        await scene.spend(key.token)
        answer = await scene.send("POST", "/api-keys/owners/owner-1/suspend", json={"reason": "unpaid"}, **admin)
        assert (answer.status_code, answer.json()["reason"]) == (200, "unpaid")
        later = await scene.key()
        other = await scene.key(owner_id="other")
        for token in (key.token, later.token) * 3:
            refused = await scene.get(token=token)
            assert (refused.status_code, code_of(refused)) == (401, "owner_suspended")
        assert await scene.spend(other.token) == [200]
        answer = await scene.send("POST", "/api-keys/owners/owner-1/resume", **admin)
        assert (answer.json()["suspended_at"], answer.json()["reason"]) == (None, None)
        assert await scene.spend(key.token) == await scene.spend(later.token) == [200]


async def test_a_suspension_is_effective_on_every_worker_when_it_is_answered(make_auth: Any, make_client: Any) -> None:
    from tests.helpers.contract_app import build_app

    async with make_auth() as here, make_auth() as there:
        key = await here.keys.create("p", "k")
        async with make_client(build_app(there)) as client:
            for number in range(20):
                headers = {"api-key": key.token}
                assert (await client.get("/models", headers=headers)).status_code == 200
                await here.owners.suspend("p")
                if here.settings.redis_url is None:
                    break  # two processes share only the database: see max_staleness_s
                assert (await client.get("/models", headers=headers)).status_code == 401, number
                await here.owners.resume("p")


async def test_a_call_that_waited_is_refused_if_its_owner_was_suspended(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    real = RequestAuthority.renew

    async def renew(authority: RequestAuthority) -> None:
        reached.set()
        await go_on.wait()
        await real(authority)

    async with open_scene() as scene:
        caller = await scene.key(scopes=["*", "keys:write"])
        monkeypatch.setattr(RequestAuthority, "renew", renew)
        sent = asyncio.create_task(scene.send("POST", "/api-keys", json={"name": "late"}, token=caller.token))
        await reached.wait()
        await scene.auth.owners.suspend("owner-1")
        go_on.set()
        answer = await sent
        assert (answer.status_code, code_of(answer)) == (401, "owner_suspended")
        assert len(await scene.auth.keys.list()) == 1


async def test_only_admin_suspends_resumes_sets_and_erases(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for caller in (await scene.caller("session", "*"), await scene.caller("key", "* keys:read keys:write")):
            for method, path in (
                ("POST", "/suspend"),
                ("POST", "/resume"),
                ("PUT", ""),
                ("DELETE", ""),
            ):
                answer = await scene.send(
                    method, f"/api-keys/owners/owner-1{path}", json={} if method != "DELETE" else None, **caller
                )
                assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope"), (method, path)
            assert (await scene.get("/api-keys/owners/owner-1", **caller)).status_code == 200
            for method, path in (("GET", ""), ("POST", "/revoke-keys")):
                answer = await scene.send(method, f"/api-keys/owners/other{path}", **caller)
                assert (answer.status_code, code_of(answer)) == (404, "not_found")


async def test_all_keys_of_an_owner_are_revoked_together(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = [await scene.key() for _ in range(3)]
        other = await scene.key(owner_id="other")
        for key in (*keys, other):
            await scene.spend(key.token)
        caller = await scene.caller("session", "*")
        answer = await scene.send("POST", "/api-keys/owners/owner-1/revoke-keys", json={"reason": "left"}, **caller)
        assert (answer.status_code, answer.json()) == (200, {"revoked": 3})
        assert {code_of(await scene.get(token=key.token)) for key in keys} == {"revoked_api_key"}
        assert await scene.spend(other.token) == [200]
        [revoked, _] = (await scene.auth.keys.events(keys[0].id)).items
        assert (revoked.event, revoked.actor, revoked.reason) == ("revoked", "user:owner-1", "left")
        answer = await scene.send("POST", "/api-keys/owners/owner-1/revoke-keys", **caller)
        assert answer.json() == {"revoked": 0}


async def test_a_key_that_is_being_created_meanwhile_is_revoked_too(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene() as scene:
        stolen = await scene.key(owner_id="p", scopes=["*", "keys:write"])
        gate = Gate(
            monkeypatch, store_of(scene.auth), "_check_room"
        )  # in the transaction, after the caller is confirmed
        creating = asyncio.create_task(scene.send("POST", "/api-keys", json={"name": "late"}, token=stolen.token))
        await gate.reached.wait()
        revoking = asyncio.create_task(scene.auth.owners.revoke_keys("p"))
        for _ in range(50):  # until it waits for the row, on PostgreSQL; SQLite has one writer
            await asyncio.wait([revoking], timeout=0.01)
        assert not revoking.done()
        gate.opened.set()
        late = await creating
        assert (late.status_code, await revoking) == (201, 2)
        assert (await scene.auth.owners.get("p")).keys.active == 0
        assert code_of(await scene.get("/models", token=late.json()["token"])) == "revoked_api_key"


async def test_all_that_one_actor_created_is_revoked_for_whichever_owner(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = scene.auth.keys.acting_as("user:left")
        made = [await keys.create(owner, "k") for owner in ("a", "b", "b")]
        stays = await scene.key(owner_id="a")
        for created in made:
            await scene.spend(created.token)
        assert await scene.auth.owners.revoke_keys(created_by="user:left", reason="left the company") == 3
        assert {code_of(await scene.get(token=created.token)) for created in made} == {"revoked_api_key"}
        assert await scene.spend(stays.token) == [200]
        with pytest.raises(InvalidField):
            await scene.auth.owners.revoke_keys()
        assert await scene.spend(stays.token) == [200]


async def test_nothing_personal_is_left_after_an_erasure(
    open_scene: OpenScene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastapi_keyauth")
    async with open_scene() as scene:
        session = await scene.session("ada@example.org")
        by_ada: dict[str, Any] = {"bearer": session, "address": "203.0.113.99"}
        body = {"name": "Ada's laptop", "metadata": {"mail": "ada@example.org"}, "allowed_ips": ["203.0.113.99"]}
        made = (await scene.send("POST", "/api-keys", json=body, **by_ada)).json()
        await scene.send("PATCH", f"/api-keys/{made['id']}", json={"name": "Ada's phone", "reason": "ada"}, **by_ada)
        await scene.get(token=made["token"], address="203.0.113.99")
        await scene.auth.keys.acting_as("user:ada@example.org").create("other", "shared")
        await scene.auth.keys.acting_as("cli:kate").create("ada@example.org", "by hand")
        successor = await scene.auth.keys.acting_as(f"key:{made['id']}").create("ada@example.org", "successor")
        admin = await admin_of(scene)
        named = {"name": "Ada", "reason": "as she wished"}
        answer = await scene.send("PUT", "/api-keys/owners/ada@example.org", json=named, **admin)
        assert (answer.status_code, answer.json()["name"]) == (200, "Ada")
        [line] = [record for record in caplog.records if getattr(record, "keyauth_event", None) == "owner_updated"]
        assert line.getMessage().endswith(" reason='as she wished'")
        await scene.auth.owners.suspend("ada@example.org", "a reason about Ada")
        answer = await scene.send("DELETE", "/api-keys/owners/ada@example.org?reason=she%20asked", **admin)
        assert answer.status_code == 200, answer.text
        erased = answer.json()
        assert (erased["keys"], erased["sessions"], erased["owners"]) == (3, 1, 1)
        assert erased["rows"] == sum(erased[name] for name in ("keys", "sessions", "events", "owners"))
        assert code_of(await scene.get(token=made["token"])) == "revoked_api_key"
        assert code_of(await scene.get("/api-keys", bearer=session)) == "invalid_session"
        await scene.auth._parts.pending_changes.delete_before(scene.clock.moment(60))
        everything = await _dump(scene)
        for personal in ("ada@example", "laptop", "phone", "about Ada", "she asked", "kate", "203.0.113.99"):
            assert [row for row in everything if personal in row] == []
        [line] = [record for record in caplog.records if getattr(record, "keyauth_event", None) == "owner_erased"]
        assert line.getMessage().endswith(" reason='she asked'")
        assert "ada@example" not in line.getMessage()
        assert (await scene.auth.keys.get(successor.key.id)).created_by == f"key:{made['id']}"
        again = (await scene.send("DELETE", "/api-keys/owners/ada@example.org", **admin)).json()
        assert again["rows"] == 0


async def test_an_erasure_leaves_other_products_alone(make_auth: Any) -> None:
    ours, theirs = make_auth(key_prefix="ka"), make_auth(key_prefix="kb")
    async with ours, theirs:
        session = await theirs.sessions.create("ada")
        key = (await theirs.keys.acting_as("user:ada").create("team", "theirs")).key
        await ours.keys.create("ada", "ours")
        await ours.owners.erase("ada")
        assert await theirs.sessions.resolve(session, None) is not None
        assert (await theirs.keys.get(key.id)).created_by == "user:ada"
        assert [event.actor for event in (await theirs.keys.events(key.id)).items] == ["user:ada"]


async def _dump(scene: Scene) -> list[str]:
    async with scene.auth._parts.database.read() as connection:
        found = [(await connection.execute(select(table))).all() for table in metadata.tables.values()]
    return [repr(row) for rows in found for row in rows]


def owners_of(mapping: dict[str, dict[str, list[str]]]) -> Any:
    async def find(user: SessionPrincipal) -> Mapping[str, list[str]]:
        return mapping.get(user.user_id, {})

    return find


async def test_members_act_for_the_owners_that_the_application_names(open_scene: OpenScene) -> None:
    mapping = {"ada": {"p": ["keys:read", "keys:write"], "q": ["keys:read"]}, "bob": {"q": ["keys:read"]}}
    async with open_scene(owners_of=owners_of(mapping)) as scene:
        ada: dict[str, Any] = {"bearer": await scene.session("ada")}
        p, q, other = [await scene.key(owner_id=owner) for owner in ("p", "q", "ada")]
        listed = await scene.get("/api-keys/owners", **ada)
        assert listed.json() == {
            "items": [
                {"owner_id": "p", "name": None, "permissions": ["keys:read", "keys:write"]},
                {"owner_id": "q", "name": None, "permissions": ["keys:read"]},
            ]
        }
        for path, status in (("p", 200), ("q", 200), ("ada", 403)):
            assert (await scene.get(f"/api-keys?owner_id={path}", **ada)).status_code == status
        ambiguous = await scene.get("/api-keys", **ada)
        assert (ambiguous.status_code, ambiguous.json()["detail"][0]["loc"]) == (422, ["query", "owner_id"])
        bob: dict[str, Any] = {"bearer": await scene.session("bob")}
        assert [item["id"] for item in (await scene.get("/api-keys", **bob)).json()["items"]] == [q.id]
        for key, statuses in ((p, (200, 200, 204)), (q, (200, 403, 403)), (other, (404, 404, 404))):
            path = f"/api-keys/{key.id}"
            answers = (
                await scene.get(path, **ada),
                await scene.send("PATCH", path, json={"name": "n"}, **ada),
                await scene.send("DELETE", path, **ada),
            )
            assert tuple(answer.status_code for answer in answers) == statuses
        for owner, status in (("p", 201), ("q", 403), ("ada", 403), (None, 422)):
            body = {"name": "n"} | ({} if owner is None else {"owner_id": owner})
            answer = await scene.send("POST", "/api-keys", json=body, **ada)
            assert answer.status_code == status, owner
        mapping["ada"] = {}
        assert (await scene.get(f"/api-keys/{p.id}", **ada)).status_code == 404


async def test_the_maximum_counts_an_owners_keys_whoever_created_them(open_scene: OpenScene) -> None:
    mapping = {user: {"p": ["keys:read", "keys:write"]} for user in ("ada", "bob")}
    async with open_scene(owners_of=owners_of(mapping), max_keys_per_owner=2) as scene:
        statuses = []
        for user in ("ada", "bob", "ada", "bob"):
            session = await scene.session(user)
            statuses.append((await scene.send("POST", "/api-keys", json={"name": "n"}, bearer=session)).status_code)
        assert statuses == [201, 201, 409, 409]


async def test_each_route_of_owners_takes_the_callers_that_it_names(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(scopes=["*", "keys:read", "keys:write", "admin"])
        session: dict[str, Any] = {"bearer": await scene.session("owner-1")}
        own = {"owner_id": "owner-1", "name": None, "permissions": ["keys:read", "keys:write"]}
        assert (await scene.get("/api-keys/owners", **session)).json() == {"items": [own]}
        current = await scene.get("/api-keys/owners/current", token=key.token)
        assert (current.status_code, current.json()) == (200, {"owner_id": "owner-1", "limits": []})
        for path, caller, code in (
            ("", {"token": key.token}, "missing_session"),
            ("", {}, "missing_session"),
            ("/current", session, "missing_api_key"),
            ("/current", {}, "missing_api_key"),
            ("/owner-1", {}, "missing_credentials"),
        ):
            answer = await scene.get(f"/api-keys/owners{path}", **caller)
            assert (answer.status_code, code_of(answer)) == (401, code), path
        for method, path in (("PUT", ""), ("POST", "/suspend"), ("POST", "/resume"), ("POST", "/revoke-keys")):
            body = {"name": "n"} if method == "PUT" else {"reason": "r"}
            answer = await scene.send(method, f"/api-keys/owners/p{path}", json=body, token=key.token)
            assert answer.status_code == 200, (path, answer.text)
        answer = await scene.send("DELETE", "/api-keys/owners/p", token=key.token)
        assert (answer.status_code, answer.json()["owners"]) == (200, 1)


async def test_members_revoke_keys_where_they_may_write_and_read_owners_where_they_may_read(
    open_scene: OpenScene,
) -> None:
    mapping = {"ada": {"p": ["keys:read", "keys:write"], "q": ["keys:read"]}}
    async with open_scene(owners_of=owners_of(mapping)) as scene:
        ada: dict[str, Any] = {"bearer": await scene.session("ada")}
        await scene.key(owner_id="p")
        for owner, read, revoke in (("p", 200, 200), ("q", 200, 403), ("other", 404, 404)):
            assert (await scene.get(f"/api-keys/owners/{owner}", **ada)).status_code == read
            answer = await scene.send("POST", f"/api-keys/owners/{owner}/revoke-keys", **ada)
            assert answer.status_code == revoke, owner
        assert (await scene.get("/api-keys/owners/p", **ada)).json()["keys"] == ZERO | {"revoked": 1}


async def test_member_revokes_with_a_key_only_those_created_keys_that_it_may_change(open_scene: OpenScene) -> None:
    mapping = {"ada": {"p": ["keys:read", "keys:write"], "q": ["keys:read"]}}
    async with open_scene(owners_of=owners_of(mapping)) as scene:
        leaked = await scene.key(owner_id="p", scopes=["*", "keys:write", "admin"])
        path = f"/api-keys/{leaked.id}?include_created=true"
        created = [
            (await scene.send("POST", "/api-keys", json={"name": "n", "owner_id": owner}, token=leaked.token)).json()
            for owner in ("p", "q")
        ]
        assert (await scene.send("DELETE", path, bearer=await scene.session("ada"))).status_code == 204
        codes = [code_of(await scene.get(token=key["token"])) for key in created]
        assert codes == ["revoked_api_key", None]


async def test_member_who_may_not_read_an_owners_keys_reads_neither_key_nor_usage_nor_history(
    open_scene: OpenScene,
) -> None:
    async with open_scene(owners_of=owners_of({"ada": {"p": ["keys:write"]}})) as scene:
        ada: dict[str, Any] = {"bearer": await scene.session("ada")}
        key, hidden = await scene.key(owner_id="p"), await scene.key(owner_id="q")
        for path in ("", "/usage", "/events"):
            refused = await scene.get(f"/api-keys/{key.id}{path}", **ada)
            assert (refused.status_code, refused.json()["missing_scopes"]) == (403, ["keys:read"]), path
            assert (await scene.get(f"/api-keys/{hidden.id}{path}", **ada)).status_code == 404, path
        for path in ("?owner_id=p", "/audit?owner_id=p", "/usage?owner_id=p"):
            assert (await scene.get(f"/api-keys{path}", **ada)).status_code == 403, path
        assert (await scene.send("PATCH", f"/api-keys/{key.id}", json={"name": "n"}, **ada)).status_code == 200


async def test_reads_of_owners_wait_for_their_turn(open_scene: OpenScene) -> None:
    """They cost no unit, and a crowd of them must not take the connections that revocations need."""
    async with open_scene() as scene:
        key, session = await scene.key(scopes=["keys:read"]), await scene.session()
        calls: list[tuple[str, dict[str, Any]]] = [
            ("", {"bearer": session}),
            ("/current", {"token": key.token}),
            ("/owner-1", {"token": key.token}),
        ]
        places = scene.auth._parts.owners._turns._places
        for _ in range(PLACES):
            await places.acquire("others")
        reads = [asyncio.create_task(scene.get(f"/api-keys/owners{path}", **caller)) for path, caller in calls]
        await until(lambda: places._by_lane.total() == len(reads) or any(read.done() for read in reads))
        assert not any(read.done() for read in reads)
        for _ in range(PLACES):
            places.release()
        assert [(await read).status_code for read in reads] == [200] * len(reads)


async def test_owner_id_that_is_too_long_is_named_in_the_path(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        admin = await admin_of(scene)
        for method in ("GET", "PUT", "DELETE"):
            answer = await scene.send(method, f"/api-keys/owners/{'x' * 256}", json={"name": "n"}, **admin)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["path", "owner_id"]
