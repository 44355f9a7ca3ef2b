"""Section 2: every finding, its answer, and which of two findings is told."""

from typing import Any

import httpx
import pytest

from .stage import ELSEWHERE, Issued, OpenScene, Scene, code_of, remaining_of
from .tokens import forge, spoiled

KEY_ORIGIN = "https://shop.example"
EVIL_ORIGIN = "https://evil.example"
LIMIT = 1000

# defect -> status, code, whether it is a failed attempt, units that it uses
FINDINGS: dict[str, tuple[int, str, bool, int]] = {
    "missing": (401, "missing_api_key", False, 0),
    "blocked": (429, "address_blocked", False, 0),
    "malformed": (401, "malformed_api_key", True, 0),
    "unknown id": (401, "invalid_api_key", True, 0),
    "wrong secret": (401, "invalid_api_key", True, 0),
    "disabled": (401, "disabled_api_key", False, 0),
    "revoked": (401, "revoked_api_key", False, 0),
    "expired": (401, "expired_api_key", False, 0),
    "wrong origin": (401, "origin_not_allowed", False, 0),
    "wrong address": (401, "address_not_allowed", False, 0),
    "capped": (429, "rate_limit_exceeded", False, 0),
    "no session": (403, "session_required", False, 1),
    "bad session": (401, "invalid_session", False, 1),
    "key lacks scope": (403, "insufficient_scope", False, 1),
    "session lacks scope": (403, "insufficient_scope", False, 1),
}
ROWS = [
    {"missing"},
    {"blocked"},
    {"malformed"},
    {"unknown id", "wrong secret"},
    {"disabled", "revoked", "expired"},
    {"wrong origin", "wrong address"},
    {"capped"},
    {"no session"},
    {"bad session"},
    {"key lacks scope", "session lacks scope"},
]
OF_THE_TOKEN = {"malformed", "unknown id", "wrong secret"}
OF_THE_KEY = OF_THE_TOKEN | {
    "disabled",
    "revoked",
    "expired",
    "wrong origin",
    "wrong address",
    "capped",
    "key lacks scope",
}


def row_of(defect: str) -> int:
    """The number of the table's row, from 0."""
    return next(number for number, row in enumerate(ROWS) if defect in row)


async def request_with(scene: Scene, *defects: str) -> tuple[Issued, dict[str, Any]]:
    """A key, and the arguments of a request that has these defects and no other."""
    fields: dict[str, Any] = {"scopes": ["items:read"], "hourly_limit": LIMIT}
    if "key lacks scope" in defects:
        fields["scopes"] = ["items:write"]
    if "wrong origin" in defects:
        fields["allowed_origins"] = [KEY_ORIGIN]
    if "capped" in defects:
        fields["hourly_limit"] = 1
    key = await scene.key(**fields)
    if "capped" in defects:
        assert await scene.spend(key.token) == [200]
    if "wrong address" in defects:
        await scene.auth.keys.update(key.id, allowed_ips=["192.0.2.0/24"])
    if "disabled" in defects:
        await scene.auth.keys.update(key.id, enabled=False)
    if "revoked" in defects:
        await scene.auth.keys.revoke(key.id)
    if "expired" in defects:
        await scene.auth.keys.update(key.id, expires_at=scene.clock.moment(60))
        scene.clock.advance(61)
    session_scopes = ("items:write",) if "session lacks scope" in defects else ("*",)
    request: dict[str, Any] = {
        "token": key.token,
        "bearer": await scene.session(scopes=session_scopes),
    }
    if "unknown id" in defects:
        request["token"] = forge()
    if "wrong secret" in defects:
        request["token"] = forge(key_id=key.id)
    if "malformed" in defects:
        request["token"] = spoiled(request["token"])
    if "missing" in defects:
        request["token"] = None
    if "wrong origin" in defects:
        request["origin"] = EVIL_ORIGIN
    if "no session" in defects:
        request["bearer"] = None
    if "bad session" in defects:
        request["bearer"] = "ks_no-such-session"
    if "blocked" in defects:
        request["address"] = ELSEWHERE
        assert set(await scene.fail(20, ELSEWHERE)) == {401, 429}
    return key, request


async def post_note(scene: Scene, request: dict[str, Any]) -> httpx.Response:
    """The request, to a route that wants a key, a session, and the scope items:read."""
    return await scene.send("POST", "/scoped-notes", **request)


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
async def test_only_bad_tokens_are_failed_attempts(open_scene: OpenScene, defect: str) -> None:
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


async def test_a_refusal_for_the_cap_uses_no_unit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=2)
        assert await scene.spend(key.token, 7) == [200] * 2 + [429] * 5
        await scene.auth.keys.update(key.id, hourly_limit=10)
        assert remaining_of(await scene.get(token=key.token)) == 10 - 3


@pytest.mark.parametrize("defect", ["disabled", "revoked", "expired"])
async def test_a_wrong_secret_does_not_tell_the_state_of_the_key(open_scene: OpenScene, defect: str) -> None:
    async with open_scene() as scene:
        _, unknown = await request_with(scene, "unknown id")
        _, wrong = await request_with(scene, "wrong secret", defect)
        answers = [await post_note(scene, request) for request in (unknown, wrong)]
        assert answers[0].json() == answers[1].json()
        assert sorted(answers[0].headers.raw) == sorted(answers[1].headers.raw)


async def test_a_session_alone_route_tells_session_before_scope(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        assert code_of(await scene.get("/my-profile")) == "missing_session"
        assert code_of(await scene.get("/my-profile", bearer="nonsense")) == "invalid_session"
        narrow = await scene.session(scopes=["items:write"])
        answer = await scene.get("/my-profile", bearer=narrow)
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        wide = await scene.session(scopes=["items:read"])
        assert (await scene.get("/my-profile", bearer=wide)).status_code == 200


async def test_missing_is_told_even_from_a_blocked_address(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1) as scene:
        await scene.fail()
        assert code_of(await scene.get()) == "missing_api_key"
        assert (await scene.get("/maybe")).json() == {"id": None}
