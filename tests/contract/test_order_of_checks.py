"""Section 2: every finding, its response, and which of two findings is reported."""

import pytest

from tests.helpers.findings import (
    FINDINGS,
    LIMIT,
    post_note,
    request_with,
)
from tests.helpers.stage import OpenScene, code_of, remaining_of


async def test_a_request_without_defect_is_admitted(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        _, request = await request_with(scene)
        assert (await post_note(scene, request)).status_code == 200


@pytest.mark.parametrize("defect", FINDINGS)
async def test_each_finding_has_its_status_and_code(open_scene: OpenScene, defect: str) -> None:
    async with open_scene() as scene:
        _, request = await request_with(scene, defect)
        answer = await post_note(scene, request)
        assert (answer.status_code, code_of(answer)) == FINDINGS[defect][:2]


@pytest.mark.parametrize("defect", [defect for defect in FINDINGS if defect != "blocked"])
async def test_only_invalid_tokens_are_failed_attempts(open_scene: OpenScene, defect: str) -> None:
    async with open_scene(block_after_failures=2) as scene:
        key_of_a_neighbour = await scene.key(owner_id="neighbour")
        _, request = await request_with(scene, defect)
        for _ in range(3):
            await post_note(scene, request)
        answer = await scene.get(token=key_of_a_neighbour.token)
        expected = "address_blocked" if FINDINGS[defect][2] else None
        assert code_of(answer) == expected


@pytest.mark.parametrize("defect", [defect for defect in FINDINGS if defect != "capped"])
async def test_a_finding_uses_the_units_that_the_contract_says(open_scene: OpenScene, defect: str) -> None:
    async with open_scene() as scene:
        key, request = await request_with(scene, defect)
        for _ in range(3):
            await post_note(scene, request)
        if defect in ("revoked", "expired"):
            usage = await scene.get(f"/api-keys/{key.id}/usage", bearer=await scene.session())
            assert sum(hour["admitted"] for hour in usage.json()["items"]) == 0
            return
        await scene.auth.keys.update(key.id, enabled=True, allowed_ips=[])
        answer = await scene.get(token=key.token)
        assert answer.status_code == 200
        assert remaining_of(answer) == LIMIT - 1 - 3 * FINDINGS[defect][3]


async def test_a_refusal_by_the_rate_limit_uses_no_unit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=2)
        assert await scene.spend(key.token, 7) == [200] * 2 + [429] * 5
        await scene.auth.keys.update(key.id, hourly_limit=10)
        assert remaining_of(await scene.get(token=key.token)) == 10 - 3


@pytest.mark.parametrize("defect", ["disabled", "revoked", "expired"])
async def test_a_wrong_secret_does_not_reveal_the_state_of_the_key(open_scene: OpenScene, defect: str) -> None:
    async with open_scene() as scene:
        _, unknown = await request_with(scene, "unknown id")
        _, wrong = await request_with(scene, "wrong secret", defect)
        answers = [await post_note(scene, request) for request in (unknown, wrong)]
        assert answers[0].json() == answers[1].json()
        assert sorted(answers[0].headers.raw) == sorted(answers[1].headers.raw)


async def test_a_session_route_checks_the_session_before_the_scope(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        assert code_of(await scene.get("/my-profile")) == "missing_session"
        assert code_of(await scene.get("/my-profile", bearer="nonsense")) == "invalid_session"
        narrow = await scene.session(scopes=["items:write"])
        answer = await scene.get("/my-profile", bearer=narrow)
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        wide = await scene.session(scopes=["items:read"])
        assert (await scene.get("/my-profile", bearer=wide)).status_code == 200


async def test_missing_is_reported_even_from_a_blocked_address(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1) as scene:
        await scene.fail()
        assert code_of(await scene.get()) == "missing_api_key"
        assert (await scene.get("/maybe")).json() == {"id": None}
