"""Keys of another owner: every management route, by every method, for every kind of caller."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import APIRouter, routing

from tests.helpers.stage import Issued, OpenScene, Scene, code_of

STACKS = ("postgres-valkey",)  # who may see what is decided in one SQL condition, the same on every store
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
BODIES: dict[str, Any] = {"PATCH": {"name": "taken over"}, "POST": {"overlap_s": 0}, "PUT": {"name": "taken over"}}
NOBODYS_ID = "0123456789Ab"

STRANGERS = [
    ("session", "*"),
    ("session", "* keys:read keys:write"),
    ("session", ""),
    ("key", "* keys:read keys:write"),
    ("key", "keys:read keys:write"),
]
TOO_WEAK = [("key", "*"), ("key", ""), ("key", "keys:read"), ("key", "keys:write")]


def routes_with_an_id(router: APIRouter) -> Iterator[tuple[str, str]]:
    """Return method and path of every route that names a key."""
    # FastAPI keeps included routers as they are since 0.137; this expands them.
    expand: Callable[[Any], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)
    for route in expand(router.routes):
        if "{id}" in route.path:
            for method in sorted(route.methods or ()):
                yield method, route.path


async def state_of(scene: Scene, key: Issued) -> tuple[Any, Any]:
    """Return everything that the management routes could change."""
    return await scene.auth.keys.get(key.id), await scene.auth.keys.events(key.id)


@pytest.mark.parametrize(("kind", "scopes"), STRANGERS)
async def test_every_route_answers_another_user_as_if_the_key_did_not_exist(
    open_scene: OpenScene, kind: str, scopes: str
) -> None:
    async with open_scene() as scene:
        victim = await scene.key(owner_id="victim", hourly_limit=1)
        caller = await scene.caller(kind, scopes, user_id="stranger")
        before = await state_of(scene, victim)
        routes = list(routes_with_an_id(scene.auth.keys_router))
        assert len(routes) >= 6
        for method, path in routes:
            answers = [
                await scene.send(method, "/api-keys" + path.format(id=key_id), json=BODIES.get(method), **caller)
                for key_id in (victim.id, NOBODYS_ID)
            ]
            assert [answer.status_code for answer in answers] == [404, 404], (method, path)
            assert answers[0].content == answers[1].content
            assert code_of(answers[0]) == "not_found"
        assert await state_of(scene, victim) == before
        assert await scene.spend(victim.token) == [200]


async def test_no_route_answers_without_credentials(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1000) as scene:
        victim = await scene.key(owner_id="victim")
        before = await state_of(scene, victim)
        for path in ("", f"/{victim.id}", f"/{victim.id}/rotate", f"/{victim.id}/usage", f"/{victim.id}/events"):
            for method in METHODS:
                wrong: list[dict[str, Any]] = [{}, {"bearer": "wrong"}, {"token": "ka_wrong"}]
                for credentials in wrong:
                    answer = await scene.send(method, f"/api-keys{path}", json=BODIES.get(method), **credentials)
                    assert answer.status_code in (401, 405), (method, path, answer.status_code)
        assert await state_of(scene, victim) == before


@pytest.mark.parametrize(("kind", "scopes"), STRANGERS)
async def test_methods_that_no_route_has_are_refused_and_do_nothing(
    open_scene: OpenScene, kind: str, scopes: str
) -> None:
    async with open_scene() as scene:
        victim = await scene.key(owner_id="victim")
        caller = await scene.caller(kind, scopes, user_id="stranger")
        before = await state_of(scene, victim)
        known = set(routes_with_an_id(scene.auth.keys_router))
        by_path: dict[str, set[str]] = {}
        for method, path in known:
            by_path.setdefault(path, set()).add(method)
        for path, methods in by_path.items():
            for method in set(METHODS) - methods:
                answer = await scene.send(method, "/api-keys" + path.format(id=victim.id), **caller)
                assert answer.status_code == 405, (method, path)
                assert answer.headers["allow"] == ", ".join(sorted(methods))
        assert await state_of(scene, victim) == before


@pytest.mark.parametrize(("kind", "scopes"), STRANGERS)
async def test_a_user_cannot_name_another_owner(open_scene: OpenScene, kind: str, scopes: str) -> None:
    async with open_scene() as scene:
        victim = await scene.key(owner_id="victim")
        caller = await scene.caller(kind, scopes, user_id="stranger")
        listed = await scene.get("/api-keys", **caller)
        assert victim.id not in listed.text
        for query in ("owner_id=victim", "owner_id=stranger&owner_id=victim", "q=test&owner_id=victim"):
            assert code_of(await scene.get(f"/api-keys?{query}", **caller)) == "insufficient_scope"
        body = {"name": "theirs", "owner_id": "victim"}
        assert code_of(await scene.send("POST", "/api-keys", json=body, **caller)) == "insufficient_scope"
        assert len(await scene.auth.keys.list("victim")) == 1


@pytest.mark.parametrize(("kind", "scopes"), TOO_WEAK)
async def test_a_key_without_the_scope_touches_not_even_its_owners_keys(
    open_scene: OpenScene, kind: str, scopes: str
) -> None:
    async with open_scene() as scene:
        own = await scene.key()
        caller = await scene.caller(kind, scopes)
        before = await state_of(scene, own)
        for method, path in routes_with_an_id(scene.auth.keys_router):
            needed = "keys:read" if method == "GET" else "keys:write"
            if needed in scopes:
                continue
            path = "/api-keys" + path.format(id=own.id)
            answer = await scene.send(method, path, json=BODIES.get(method), **caller)
            assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
            assert answer.json()["missing_scopes"] == [needed]
        assert await state_of(scene, own) == before


async def test_another_owners_cursor_opens_no_page_of_theirs(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        own = await scene.key(owner_id="mallory")
        scene.clock.advance(1)
        for _ in range(3):
            await scene.key()
            scene.clock.advance(1)
        page = (await scene.get("/api-keys?limit=1", bearer=await scene.session())).json()
        query = urlencode({"cursor": page["next_cursor"]})
        answer = await scene.get(f"/api-keys?{query}", bearer=await scene.session("mallory"))
        assert [item["id"] for item in answer.json()["items"]] == [own.id]
