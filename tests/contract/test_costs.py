"""auth.require(cost=...): the highest cost of each unit, charged once, in one step."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.security import SecurityScopes

from fastapi_keyauth import KeyPrincipal, RateLimitExceeded, SessionPrincipal
from tests.helpers.stage import OpenScene, code_of, remaining_of

IMAGES = {"name": "images", "limit": 6, "per": "day", "unit": "images"}
HOUR = {"name": "hour", "limit": 10, "per": "hour"}


async def test_a_route_charges_its_cost(open_scene: OpenScene) -> None:
    async with open_scene(units=["images"]) as scene:
        auth = scene.auth

        @scene.app.get("/draw", dependencies=[Depends(auth.require(cost={"images": 4}))])
        async def draw() -> None: ...

        @scene.app.get("/search", dependencies=[Depends(auth.require(cost=5))])
        async def search() -> None: ...

        key = await scene.key(limits=[HOUR, IMAGES])
        answer = await scene.get("/draw", token=key.token)
        assert [item.split(";")[1] for item in answer.headers["ratelimit"].split(", ")] == ["r=9", "r=2"]
        refused = await scene.get("/draw", token=key.token)
        assert refused.json()["violated-policies"] == ["images"]
        assert remaining_of(await scene.get("/search", token=key.token)) == 4
        refused = await scene.get("/search", token=key.token)
        assert (refused.status_code, remaining_of(refused)) == (429, 4)
        assert "its limit of 10 requests per hour has only 4 left" in refused.json()["detail"]


async def test_refused_difference_is_refused_again_if_a_handler_catches_it(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        auth = scene.auth
        dear = auth.require(cost=5)

        @scene.app.get("/stubborn")
        async def stubborn(request: Request, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> list[str]:
            outcomes = []
            for _ in range(2):
                try:
                    await dear(request, SecurityScopes())
                    outcomes.append("admitted")
                except RateLimitExceeded:
                    outcomes.append("refused")
            return outcomes

        key = await scene.key(hourly_limit=4)
        assert (await scene.get("/stubborn", token=key.token)).json() == ["refused", "refused"]
        assert remaining_of(await scene.get(token=key.token)) == 2


async def test_request_state_has_what_is_left_after_the_difference(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        auth = scene.auth
        auth.protect(scene.app)

        @scene.app.get("/left")
        async def left(
            request: Request, key: Annotated[KeyPrincipal, Depends(auth.require(cost=5))]
        ) -> dict[str, int | None]:
            return {"state": request.state.key.remaining, "dependency": key.remaining}

        key = await scene.key(hourly_limit=10)
        answer = await scene.get("/left", token=key.token)
        assert answer.json() == {"state": 5, "dependency": 5}
        assert remaining_of(answer) == 5


@pytest.mark.parametrize("path", ["/dear", "/included/dear", "/mounted/dear"])
async def test_what_a_limit_refuses_behind_protect_is_charged_nothing(open_scene: OpenScene, path: str) -> None:
    async with open_scene() as scene:
        auth = scene.auth
        router, mounted = APIRouter(dependencies=[Depends(auth.require(cost=3))]), FastAPI()

        @mounted.get("/dear")
        @router.get("/dear")
        @scene.app.get("/dear")
        async def dear(key: Annotated[KeyPrincipal, Depends(auth.require(cost=5))]) -> None: ...

        scene.app.include_router(router, prefix="/included")
        auth.install(mounted)
        scene.app.mount("/mounted", mounted)
        auth.protect(scene.app)
        key = await scene.key(hourly_limit=9)
        answers = [await scene.get(path, token=key.token) for _ in range(3)]
        assert [(answer.status_code, remaining_of(answer)) for answer in answers] == [(200, 4), (429, 4), (429, 4)]
        assert remaining_of(await scene.get(token=key.token)) == 3


async def test_several_requirements_charge_the_highest_cost_of_each_unit_once(open_scene: OpenScene) -> None:
    async with open_scene(units=["images"]) as scene:
        auth = scene.auth

        @scene.app.get("/many", dependencies=[Depends(auth.require(cost=3)), Depends(auth.require(cost={"images": 2}))])
        async def many(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None: ...

        key = await scene.key(limits=[HOUR, IMAGES])
        answer = await scene.get("/many", token=key.token)
        assert [item.split(";")[1] for item in answer.headers["ratelimit"].split(", ")] == ["r=7", "r=4"]


async def test_scopes_session_and_optional(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        auth = scene.auth
        both, maybe = auth.require(session=True), auth.require(optional=True)
        only_session = auth.require(key=False, session=True, scopes=["a:read"])

        @scene.app.get("/scoped", dependencies=[Depends(auth.require(scopes=["a:read"]))])
        async def scoped() -> None: ...

        @scene.app.get("/both")
        async def with_session(user: Annotated[SessionPrincipal, Depends(both)]) -> str:
            return user.user_id

        @scene.app.get("/optional")
        async def optional(key: Annotated[KeyPrincipal | None, Depends(maybe)]) -> bool:
            return key is not None

        @scene.app.get("/session")
        async def session_alone(user: Annotated[SessionPrincipal, Depends(only_session)]) -> bool:
            return user.key is None

        key = await scene.key(scopes=["b:read"])
        assert code_of(await scene.get("/session", token=key.token)) == "missing_session"
        assert code_of(await scene.get("/session", bearer=await scene.session(scopes=["b"]))) == "insufficient_scope"
        assert (await scene.get("/session", token="wrong", bearer=await scene.session())).json() is True
        assert code_of(await scene.get("/scoped", token=key.token)) == "insufficient_scope"
        assert code_of(await scene.get("/both", token=key.token)) == "session_required"
        session = await scene.session()
        assert (await scene.get("/both", token=key.token, bearer=session)).status_code == 200
        assert (await scene.get("/optional")).json() is False
        assert (await scene.get("/optional", token=key.token)).json() is True


@pytest.mark.parametrize("options", [{"session": True, "optional": True}, {"key": False}])
async def test_a_contradictory_requirement_is_a_value_error(open_scene: OpenScene, options: dict[str, Any]) -> None:
    async with open_scene() as scene:
        with pytest.raises(ValueError, match="session"):
            scene.auth.require(**options)


@pytest.mark.parametrize("cost", [-1, 1_000_000_001, True, 1.5, {"unknown": 1}, {"requests": -1}])
async def test_an_invalid_cost_is_a_value_error(open_scene: OpenScene, cost: Any) -> None:
    async with open_scene() as scene:
        with pytest.raises((ValueError, TypeError)):
            scene.auth.require(cost=cost)


async def test_a_cost_of_an_included_router_is_charged_in_one_step(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        router = APIRouter()

        @router.get("/part", dependencies=[Depends(scene.auth.require_key)])
        async def part() -> None: ...

        levels = [Depends(scene.auth.require_key), Depends(scene.auth.require(cost=7))]
        scene.app.include_router(router, prefix="/dear", dependencies=levels)
        key = await scene.key(limits=[HOUR])
        answers = [await scene.get("/dear/part", token=key.token) for _ in range(2)]
        assert [(answer.status_code, remaining_of(answer)) for answer in answers] == [(200, 3), (429, 3)]


async def test_the_limits_of_the_owner_cost_nothing_beside_routes_that_cost_more(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        scene.auth.require(cost=5)
        key = await scene.key(limits=[{**HOUR, "limit": 1}], scopes=["keys:read"])
        for _ in range(2):
            assert (await scene.get("/api-keys/owners/current", token=key.token)).status_code == 200
        shown = [await scene.get("/api-keys/owners/x/owners/current", token=key.token) for _ in range(2)]
        assert [answer.status_code for answer in shown] == [404, 429]


async def test_a_requirement_with_a_cost_takes_a_key_before_it_is_called(open_scene: OpenScene) -> None:
    site = "https://app.example"
    async with open_scene(allowed_origins=[site]) as scene:

        @scene.app.post("/draw", dependencies=[Depends(scene.auth.require(cost=2))])
        async def draw(_body: dict[str, str]) -> None: ...

        answer = await scene.send("POST", "/draw", json=[1], origin=site)
        assert answer.headers["access-control-allow-origin"] == site
        answer = await scene.send(
            "POST", "/draw", content=b"{", origin=site, headers=[("content-type", "application/json")]
        )
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (422, site)


async def test_a_route_for_keys_or_sessions_has_a_cost_by_a_second_requirement(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        auth = scene.auth
        requirements = [Depends(auth.require_key_or_session), Depends(auth.require(cost=3, optional=True))]

        @scene.app.get("/draw", dependencies=requirements)
        async def draw() -> None: ...

        key = await scene.key(limits=[HOUR])
        assert remaining_of(await scene.get("/draw", token=key.token)) == 7
        answer = await scene.get("/draw", bearer=await scene.session())
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
        assert code_of(await scene.get("/draw")) == "missing_credentials"
