"""Reservations: the rest returns to its window, an excess is a debt, and nothing is charged twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends
from fastapi.responses import StreamingResponse

from fastapi_keyauth import KeyPrincipal
from fastapi_keyauth.errors import KeyAuthError, RateLimitExceeded
from fastapi_keyauth.testing import key_principal
from tests.helpers.stage import Issued, OpenScene, Scene, code_of

TOKENS = {"name": "tokens", "limit": 1000, "per": "hour", "unit": "tokens"}


async def left(scene: Scene, key: Issued) -> int:
    """Return the tokens that are left according to the headers."""
    current = (await scene.get("/api-keys/current", token=key.token)).json()
    return next(int(state["remaining"]) for state in current["limit_states"] if state["unit"] == "tokens")


async def make_key(scene: Scene) -> tuple[Issued, KeyPrincipal]:
    key = await scene.key(limits=[TOKENS])
    return key, key_principal(id=key.id)


async def test_what_is_settled_is_charged_and_the_rest_returns(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        hold = await scene.auth.reserve(principal, tokens=400)
        assert await left(scene, key) == 600
        await hold.settle(tokens=131)
        assert await left(scene, key) == 869
        await hold.settle(tokens=1)
        assert await left(scene, key) == 869


async def test_an_excess_is_a_debt_that_refuses_the_next_request(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        async with scene.auth.reserve(principal, tokens=900) as hold:
            await hold.settle(tokens=1500)
        refused = await scene.get(token=key.token)
        assert code_of(refused) == "rate_limit_exceeded"
        assert refused.headers["ratelimit"].startswith('"tokens";r=0;')
        scene.clock.to_next_hour()
        assert await scene.spend(key.token) == [200]


async def test_no_room_charges_nothing(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        with pytest.raises(RateLimitExceeded) as refused:
            await scene.auth.reserve(principal, tokens=1001)
        assert refused.value.violated_policies == ["tokens"]
        assert await left(scene, key) == 1000


async def test_an_unsettled_hold_stays_charged(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        with pytest.raises(asyncio.CancelledError):
            async with scene.auth.reserve(principal, tokens=400):
                raise asyncio.CancelledError
        assert await left(scene, key) == 600


async def test_a_rest_returns_to_its_own_window(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        hold = await scene.auth.reserve(principal, tokens=400)
        scene.clock.to_next_hour()
        await scene.auth.reserve(principal, tokens=100)
        await hold.settle(tokens=0)
        assert await left(scene, key) == 900


async def test_a_revoked_key_reserves_nothing(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        key, principal = await make_key(scene)
        await scene.auth.keys.revoke(key.id)
        with pytest.raises(KeyAuthError, match=key.id):
            await scene.auth.reserve(principal, tokens=1)


@pytest.mark.parametrize("units", [{}, {"unknown": 1}, {"tokens": -1}, {"tokens": 1.5}, {"tokens": 1_000_000_001}])
async def test_invalid_units_are_a_value_error(open_scene: OpenScene, units: dict[str, int]) -> None:
    async with open_scene(units=["tokens"]) as scene:
        with pytest.raises(ValueError, match=r"tokens|unknown"):
            scene.auth.reserve(key_principal(), **units)


async def test_a_streamed_answer_settles_what_it_used(open_scene: OpenScene) -> None:
    async with open_scene(units=["tokens"]) as scene:
        auth = scene.auth

        @scene.app.get("/chat")
        async def chat(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> StreamingResponse:
            hold = await auth.reserve(key, tokens=600)

            async def stream() -> AsyncIterator[str]:
                used = 0
                for word in ("so", "many", "words"):
                    used += 10
                    yield word
                await hold.settle(tokens=used)

            return StreamingResponse(stream())

        key = await scene.key(limits=[TOKENS])
        assert (await scene.get("/chat", token=key.token)).text == "somanywords"
        assert await left(scene, key) == 970
        async with auth.reserve(key_principal(id=key.id), tokens=500):
            refused = await scene.get("/chat", token=key.token)
        assert (refused.status_code, refused.json()["violated-policies"]) == (429, ["tokens"])
        assert refused.headers["ratelimit"].startswith('"tokens";r=470;')
