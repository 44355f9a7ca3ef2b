"""Section 11: routes that programs call with a key and people with a session."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, Security

from fastapi_keyauth import KeyPrincipal, SessionPrincipal
from tests.helpers.stage import OpenScene, Scene, challenges_of, code_of, remaining_of
from tests.helpers.tokens import NO_TOKEN, forge

# The order of checks itself is tested on every stack elsewhere.
STACKS = ("sqlite-memory",)

BOTH_CHALLENGES = ['api-key realm="tests"', 'Bearer realm="tests"']


def add_routes(scene: Scene) -> None:
    """`/either`, and `/either-scoped`, which requires `items:read`."""
    either = scene.auth.require_key_or_session

    @scene.app.get("/either")
    async def any_caller(caller: Annotated[KeyPrincipal | SessionPrincipal, Depends(either)]) -> dict[str, Any]:
        if isinstance(caller, KeyPrincipal):
            return {"key": caller.id}
        return {"user": caller.user_id, "with_key": caller.key is not None}

    @scene.app.get("/either-scoped")
    async def scoped(
        caller: Annotated[KeyPrincipal | SessionPrincipal, Security(either, scopes=["items:read"])],
    ) -> str:
        return type(caller).__name__


async def test_a_key_or_a_session_is_enough(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        key, session = await scene.key(), await scene.session("ada")
        assert (await scene.get("/either", token=key.token)).json() == {"key": key.id}
        assert (await scene.get("/either", bearer=key.token)).json() == {"key": key.id}
        assert (await scene.get("/either", bearer=session)).json() == {"user": "ada", "with_key": False}


async def test_a_key_decides_if_both_were_sent(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        key, session = await scene.key(), await scene.session()
        assert (await scene.get("/either", token=key.token, bearer=session)).json() == {"key": key.id}
        assert (await scene.get("/either", token=key.token, bearer="no-session")).json() == {"key": key.id}
        await scene.auth.keys.revoke(key.id)
        assert code_of(await scene.get("/either", token=key.token, bearer=session)) == "revoked_api_key"
        assert code_of(await scene.get("/either", token=forge(), bearer=session)) == "invalid_api_key"
        assert code_of(await scene.get("/either", token=NO_TOKEN, bearer=session)) == "malformed_api_key"


async def test_without_either_both_are_challenged(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        answer = await scene.get("/either")
        assert (answer.status_code, code_of(answer)) == (401, "missing_credentials")
        assert challenges_of(answer) == BOTH_CHALLENGES
        answer = await scene.get("/either", bearer="no-session")
        assert (answer.status_code, code_of(answer)) == (401, "invalid_session")
        assert challenges_of(answer) == [BOTH_CHALLENGES[0], BOTH_CHALLENGES[1] + ', error="invalid_token"']


async def test_scopes_apply_to_whichever_came(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        wide, narrow = await scene.key(scopes=["items:read"]), await scene.key(scopes=["items:write"])
        person, guest = await scene.session(scopes=["items:read"]), await scene.session(scopes=[])
        path = "/either-scoped"
        assert (await scene.get(path, token=wide.token, bearer=guest)).json() == "KeyPrincipal"
        assert (await scene.get(path, bearer=person)).json() == "SessionPrincipal"
        for refused in (await scene.get(path, token=narrow.token, bearer=person), await scene.get(path, bearer=guest)):
            assert (refused.status_code, code_of(refused)) == (403, "insufficient_scope")
            assert refused.json()["missing_scopes"] == ["items:read"]


async def test_limits_apply_to_keys_and_not_to_sessions(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        key, session = await scene.key(hourly_limit=1), await scene.session()
        assert remaining_of(await scene.get("/either", token=key.token)) == 0
        assert code_of(await scene.get("/either", token=key.token, bearer=session)) == "rate_limit_exceeded"
        for _ in range(3):
            answer = await scene.get("/either", bearer=session)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


@pytest.mark.parametrize(("path", "scopes"), [("/either", []), ("/either-scoped", ["items:read"])])
async def test_openapi_states_either_of_the_two(open_scene: OpenScene, path: str, scopes: list[str]) -> None:
    async with open_scene() as scene:
        add_routes(scene)
        operation = scene.app.openapi()["paths"][path]["get"]
        assert operation["security"] == [{"ApiKey": scopes}, {"Session": scopes}]
        assert {"401", "403", "429"} <= set(operation["responses"])
