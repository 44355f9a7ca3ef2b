"""A change requires authority that is still valid when the change is committed, and never exceeds it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from fastapi_keyauth import SessionPrincipal
from fastapi_keyauth.http.routers.callers import RequestAuthority
from tests.helpers.keys import Gate, store_of
from tests.helpers.stage import ELSEWHERE, Issued, OpenScene, Scene, code_of

CALLS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "create": ("POST", "/api-keys", {"name": "late", "scopes": ["items:read"]}),
    "patch": ("PATCH", "/api-keys/{id}", {"name": "late"}),
    "rotate": ("POST", "/api-keys/{id}/rotate", {"overlap_s": 0}),
    "revoke": ("DELETE", "/api-keys/{id}", None),
}
TakeAway = Callable[[Scene, Issued], Awaitable[Any]]
TAKEN_AWAY: dict[str, tuple[TakeAway, int, str]] = {
    "revoked": (lambda scene, key: scene.auth.keys.revoke(key.id), 401, "revoked_api_key"),
    "disabled": (lambda scene, key: scene.auth.keys.update(key.id, enabled=False), 401, "disabled_api_key"),
    "rotated": (lambda scene, key: scene.auth.keys.rotate(key.id, timedelta(0)), 401, "expired_api_key"),
    "without the scope": (
        lambda scene, key: scene.auth.keys.update(key.id, scopes=["items:read"]),
        403,
        "insufficient_scope",
    ),
    "elsewhere": (
        lambda scene, key: scene.auth.keys.update(key.id, allowed_ips=[ELSEWHERE]),
        401,
        "address_not_allowed",
    ),
}


class Waiting:
    """Holds admitted management calls just before their transaction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        real = RequestAuthority.renew

        async def renew(authority: RequestAuthority) -> None:
            self.reached.set()
            await self.go_on.wait()
            await real(authority)

        monkeypatch.setattr(RequestAuthority, "renew", renew)


@pytest.mark.parametrize(
    ("call", "taken"), [*((call, "revoked") for call in CALLS), *(("create", taken) for taken in [*TAKEN_AWAY][1:])]
)
async def test_a_call_that_waited_is_refused_if_its_key_has_changed(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch, call: str, taken: str
) -> None:
    take_away, status, code = TAKEN_AWAY[taken]
    method, path, body = CALLS[call]
    async with open_scene() as scene:
        stolen = await scene.key(scopes=["items:read", "keys:write"])
        other = await scene.key(scopes=["items:read"])
        waiting = Waiting(monkeypatch)
        sent = asyncio.create_task(scene.send(method, path.format(id=other.id), json=body, token=stolen.token))
        await waiting.reached.wait()
        await take_away(scene, stolen)
        waiting.go_on.set()
        answer = await sent
        assert (answer.status_code, code_of(answer)) == (status, code)
        assert [event.event for event in await _history(scene, other)] == ["created"]
        assert len(await scene.auth.keys.list()) == 2


async def test_a_call_that_waited_grants_no_limit_that_its_key_has_lost(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, narrow = ([{"name": "minute", "limit": limit, "per": "minute"}] for limit in (100, 1))
    async with open_scene(default_hourly_limit=None) as scene:
        stolen = await scene.key(scopes=["items:read", "keys:write"], limits=wide)
        waiting = Waiting(monkeypatch)
        body = {"name": "late", "scopes": ["items:read"], "limits": wide}
        sent = asyncio.create_task(scene.send("POST", "/api-keys", json=body, token=stolen.token))
        await waiting.reached.wait()
        await scene.auth.keys.update(stolen.id, limits=narrow)
        waiting.go_on.set()
        answer = await sent
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        assert len((await scene.auth.keys.list()).items) == 1


async def test_a_call_that_waited_exempts_no_key_once_its_own_has_lost_admin(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene(max_key_ttl_s=7200) as scene:
        scopes = ["items:read", "keys:write"]
        stolen = await scene.key(scopes=[*scopes, "admin"], exempt_from_policy=True)
        waiting = Waiting(monkeypatch)
        body = {"name": "late", "scopes": ["items:read"], "exempt_from_policy": True}
        sent = asyncio.create_task(scene.send("POST", "/api-keys", json=body, token=stolen.token))
        await waiting.reached.wait()
        await scene.auth.keys.update(stolen.id, scopes=scopes)
        waiting.go_on.set()
        answer = await sent
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        assert len((await scene.auth.keys.list()).items) == 1


@pytest.mark.parametrize("is_own", [True, False], ids=["of the plugin", "of a resolver"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_waited_is_refused_if_its_session_has_ended(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch, call: str, is_own: bool
) -> None:
    users = {"token-of-owner-1": SessionPrincipal("owner-1")}

    async def resolve(token: str, _connection: Any) -> SessionPrincipal | None:
        return users.get(token)

    method, path, body = CALLS[call]
    settings: dict[str, Any] = {} if is_own else {"session_resolver": resolve}
    async with open_scene(**settings) as scene:
        other = await scene.key(scopes=["items:read"])
        session = await scene.session() if is_own else "token-of-owner-1"
        waiting = Waiting(monkeypatch)
        sent = asyncio.create_task(scene.send(method, path.format(id=other.id), json=body, bearer=session))
        await waiting.reached.wait()
        await scene.auth.sessions.revoke(session)
        users.clear()
        waiting.go_on.set()
        answer = await sent
        assert (answer.status_code, code_of(answer)) == (401, "invalid_session")
        assert [event.event for event in await _history(scene, other)] == ["created"]
        assert len(await scene.auth.keys.list()) == 1


async def test_keys_that_change_each_other_do_not_deadlock(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = [await scene.key(scopes=["*", "keys:write"]) for _ in range(2)]
        calls = [
            scene.send("PATCH", f"/api-keys/{changed.id}", json={"name": f"{number}"}, token=by.token)
            for number in range(10)
            for by in keys
            for changed in keys
        ]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}


BOUNDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "environment": ({"environment": "test"}, {"environment": "test"}, {"environment": "live"}),
    "origins": (
        {"allowed_origins": ["https://a.example", "https://b.example"]},
        {"allowed_origins": ["https://b.example"]},
        {"allowed_origins": ["https://a.example", "https://c.example"]},
    ),
    "any origin": ({"allowed_origins": ["https://a.example"]}, {}, {"allowed_origins": []}),
    "addresses": (
        {"allowed_ips": ["203.0.113.0/24", "2001:db8::/32"]},
        {"allowed_ips": ["203.0.113.64/26", "2001:db8::1"]},
        {"allowed_ips": ["203.0.112.0/23"]},
    ),
    "any address": ({"allowed_ips": ["203.0.113.0/24"]}, {}, {"allowed_ips": []}),
}


@pytest.mark.parametrize("bound", BOUNDS)
async def test_a_key_creates_only_keys_that_are_bound_as_tightly(open_scene: OpenScene, bound: str) -> None:
    own, allowed, too_wide = BOUNDS[bound]
    async with open_scene() as scene:
        caller = await scene.key(scopes=["*", "keys:write"], **own)
        left_out = await scene.send("POST", "/api-keys", json={"name": "n"}, token=caller.token)
        assert (left_out.status_code, {field: left_out.json()[field] for field in own}) == (201, own)
        tighter = await scene.send("POST", "/api-keys", json={"name": "n", **allowed}, token=caller.token)
        assert (tighter.status_code, {field: tighter.json()[field] for field in own}) == (201, own | allowed)
        wider = await scene.send("POST", "/api-keys", json={"name": "n", **too_wide}, token=caller.token)
        assert (wider.status_code, code_of(wider)) == (403, "insufficient_scope")


async def test_a_key_neither_outlives_nor_widens_its_creator(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        end = scene.clock.moment(3600)
        caller = await scene.key(scopes=["*", "keys:write"], expires_at=end, allowed_ips=["203.0.113.0/24"])
        made = (await scene.send("POST", "/api-keys", json={"name": "n"}, token=caller.token)).json()
        assert made["expires_at"] == end.isoformat().replace("+00:00", "Z")
        tries: list[dict[str, Any]] = [
            {"expires_at": None},
            {"expires_at": scene.clock.rfc3339(7200)},
            {"allowed_ips": []},
            {"allowed_ips": ["198.51.100.1"]},
        ]
        for changes in tries:
            for id in (made["id"], caller.id):
                answer = await scene.send("PATCH", f"/api-keys/{id}", json=changes, token=caller.token)
                assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope"), changes
        too_long = await scene.send("POST", "/api-keys", json={"name": "n", "expires_in_s": 7200}, token=caller.token)
        assert too_long.status_code == 403
        sooner = {"expires_at": scene.clock.rfc3339(60), "allowed_ips": ["203.0.113.7"]}
        answer = await scene.send("PATCH", f"/api-keys/{made['id']}", json=sooner, token=caller.token)
        assert answer.status_code == 200


async def test_a_key_neither_changes_nor_rotates_one_that_is_bound_less_but_may_revoke_it(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        caller = await scene.key(scopes=["*", "keys:write"], allowed_ips=["203.0.113.0/24"])
        free = await scene.key()
        for method, path, body in (CALLS["patch"], CALLS["rotate"]):
            answer = await scene.send(method, path.format(id=free.id), json=body, token=caller.token)
            assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        assert (await scene.send("DELETE", f"/api-keys/{free.id}", token=caller.token)).status_code == 204


@pytest.mark.parametrize("kind", ["session", "key"])
async def test_admin_is_not_bound(open_scene: OpenScene, kind: str) -> None:
    async with open_scene() as scene:
        fields: dict[str, Any] = {"allowed_ips": ["203.0.113.0/24"]} if kind == "key" else {}
        admin = await scene.caller(kind, "* admin", **fields)
        assert (await scene.send("POST", "/api-keys", json={"name": "n"}, **admin)).json()["allowed_ips"] == []


async def test_a_key_that_admin_disabled_is_enabled_by_admin_alone(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        path = f"/api-keys/{key.id}"
        admin: dict[str, Any] = {"bearer": await scene.session("root", ["*", "admin"])}
        owner: dict[str, Any] = {"bearer": await scene.session()}
        await scene.send("PATCH", path, json={"enabled": False}, **owner)
        assert (await scene.send("PATCH", path, json={"enabled": True}, **owner)).status_code == 200
        await scene.send("PATCH", path, json={"enabled": False}, **owner)
        await scene.send("PATCH", path, json={"enabled": False}, **admin)  # also if it was disabled already
        answer = await scene.send("PATCH", path, json={"name": "new", "enabled": False}, **owner)
        assert (answer.status_code, answer.json()["disabled_by_admin"]) == (200, True)
        answer = await scene.send("PATCH", path, json={"enabled": True}, **owner)
        assert (answer.status_code, answer.json()["missing_scopes"]) == (403, ["admin"])
        answer = await scene.send("PATCH", path, json={"enabled": True}, **admin)
        assert (answer.status_code, answer.json().get("disabled_by_admin")) == (200, None)
        await scene.send("PATCH", path, json={"enabled": False}, **owner)
        assert (await scene.send("PATCH", path, json={"enabled": True}, **owner)).status_code == 200


async def test_a_key_that_the_command_line_disabled_is_not_enabled_by_its_owner(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        owner: dict[str, Any] = {"bearer": await scene.session()}
        codes = {}
        for actor in ("cli:ada", "user:ada", None):
            key = await scene.key()
            keys = scene.auth.keys if actor is None else scene.auth.keys.acting_as(actor)
            await keys.update(key.id, enabled=False)
            answer = await scene.send("PATCH", f"/api-keys/{key.id}", json={"enabled": True}, **owner)
            codes[actor] = (answer.status_code, answer.json().get("missing_scopes"))
            await keys.update(key.id, enabled=True)
            assert await scene.spend(key.token) == [200]
        assert codes == {"cli:ada": (403, ["admin"]), "user:ada": (200, None), None: (200, None)}


async def test_the_history_shows_who_and_why_but_not_the_address_of_admin(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        owner: dict[str, Any] = {"bearer": await scene.session()}
        made = (await scene.send("POST", "/api-keys", json={"name": "n"}, **owner)).json()
        path = f"/api-keys/{made['id']}"
        admin: dict[str, Any] = {"bearer": await scene.session("root", ["*", "admin"]), "address": ELSEWHERE}
        await scene.send("PATCH", path, json={"name": "m", "reason": "too short"}, **admin)
        await scene.send("POST", f"{path}/rotate", json={"reason": "yearly"}, **owner)
        await scene.send("DELETE", f"{path}?reason=leaked%20in%20a%20log", **owner)
        shown = (await scene.get(f"{path}/events", **owner)).json()["items"]
        assert [(item["event"], item["actor"], item["reason"]) for item in shown] == [
            ("revoked", "user:owner-1", "leaked in a log"),
            ("rotated", "user:owner-1", "yearly"),
            ("updated", "user:root", "too short"),
            ("created", "user:owner-1", None),
        ]
        assert [item["address"] is None for item in shown] == [False, False, True, False]
        assert ELSEWHERE in (await scene.get(f"{path}/events", **admin)).text
        assert made["created_by"] == "user:owner-1"


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "a\nb"])
async def test_a_reason_is_one_line_of_text(open_scene: OpenScene, reason: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        caller: dict[str, Any] = {"bearer": await scene.session()}
        for method, path in (("PATCH", f"/api-keys/{key.id}"), ("POST", f"/api-keys/{key.id}/rotate")):
            answer = await scene.send(method, path, json={"reason": reason}, **caller)
            assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "reason"])


async def test_keys_are_found_by_creator_id_hint_and_token(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        made = [await scene.key(name=f"key {number}") for number in range(3)]
        key = made[1]
        await scene.auth.keys.acting_as("cli:ada").create("owner-1", "by ada")
        caller: dict[str, Any] = {"bearer": await scene.session()}
        hint = key.row.hint
        damaged = key.token[:40]
        for q in (key.id, hint, key.token, f"  {key.token}\n", f'"{key.token}"', damaged, "KEY 1"):
            async with scene.make_client(scene.app) as client:
                headers = {"authorization": f"Bearer {caller['bearer']}"}
                found = await client.get("/api-keys", params={"q": q}, headers=headers)
            assert [item["id"] for item in found.json()["items"]] == [key.id], q
        found = await scene.get("/api-keys?created_by=cli:ada", **caller)
        assert [item["name"] for item in found.json()["items"]] == ["by ada"]


async def test_what_a_leaked_key_created_is_revoked_with_it(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        leaked = await scene.key(scopes=["*", "keys:write"])
        body = {"name": "n", "scopes": ["*", "keys:write"]}
        child = (await scene.send("POST", "/api-keys", json=body, token=leaked.token)).json()
        grandchild = (await scene.send("POST", "/api-keys", json={"name": "n"}, token=child["token"])).json()
        elsewhere = await scene.auth.keys.acting_as(f"key:{leaked.id}").create("other", "k")
        own = await scene.key()
        tokens = [leaked.token, child["token"], grandchild["token"], own.token, elsewhere.token]
        assert await asyncio.gather(*(scene.get(token=token) for token in tokens))
        path = f"/api-keys/{leaked.id}?reason=leaked&include_created=true"
        for _ in range(2):
            assert (await scene.send("DELETE", path, bearer=await scene.session())).status_code == 204
        codes = [code_of(await scene.get(token=token)) for token in tokens]
        assert codes == ["revoked_api_key"] * 3 + [None, None], "another owner's key is not the caller's to revoke"
        history = (await scene.auth.keys.events(grandchild["id"])).items
        assert [(event.event, event.reason) for event in history] == [("revoked", "leaked"), ("created", None)]


async def test_a_grandchild_that_is_being_created_is_revoked_as_well(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene() as scene:
        leaked = await scene.key(scopes=["*", "keys:write"])
        body = {"name": "n", "scopes": ["*", "keys:write"]}
        child = (await scene.send("POST", "/api-keys", json=body, token=leaked.token)).json()
        gate = Gate(
            monkeypatch, store_of(scene.auth), "_check_room"
        )  # in the transaction, after the caller is confirmed
        creating = asyncio.create_task(scene.send("POST", "/api-keys", json=body, token=child["token"]))
        await gate.reached.wait()
        revoking = asyncio.create_task(scene.auth.keys.revoke(leaked.id, include_created=True))
        for _ in range(50):  # until it waits for the row, on PostgreSQL; SQLite has one writer
            await asyncio.wait([revoking], timeout=0.01)
        assert not revoking.done()
        gate.opened.set()
        late = await creating
        assert late.status_code == 201
        await revoking
        for token in (child["token"], late.json()["token"]):
            assert code_of(await scene.get("/models", token=token)) == "revoked_api_key"


async def _history(scene: Scene, key: Issued) -> list[Any]:
    return (await scene.auth.keys.events(key.id)).items
