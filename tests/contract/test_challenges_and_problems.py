"""Section 2: the challenge lines, the problem documents, and Retry-After."""

from typing import Any

import httpx
import pytest

from tests.helpers.stage import (
    LEFT_OF_THE_HOUR_S,
    OpenScene,
    Scene,
    challenges_of,
    code_of,
    whole_seconds,
)
from tests.helpers.tokens import NO_TOKEN, forge

# What is checked here happens before the store and the limiter, so one stack says it all.
STACKS = ("sqlite-memory",)

KEY_LINE = 'api-key realm="tests"'
BEARER_LINE = 'Bearer realm="tests"'


@pytest.mark.parametrize(
    ("method", "path", "settings", "code", "lines"),
    [
        ("GET", "/models", {}, "missing_api_key", [KEY_LINE, BEARER_LINE]),
        ("GET", "/items", {}, "missing_api_key", [KEY_LINE, BEARER_LINE]),
        ("GET", "/models", {"accept_bearer_keys": False}, "missing_api_key", [KEY_LINE]),
        ("POST", "/notes", {}, "missing_api_key", [KEY_LINE, BEARER_LINE]),
        (
            "POST",
            "/notes",
            {"accept_bearer_keys": False},
            "missing_api_key",
            [KEY_LINE, BEARER_LINE],
        ),
        ("GET", "/me", {}, "missing_session", [BEARER_LINE]),
        ("GET", "/api-keys", {}, "missing_credentials", [KEY_LINE, BEARER_LINE]),
        ("POST", "/api-keys", {}, "missing_credentials", [KEY_LINE, BEARER_LINE]),
        ("DELETE", "/api-keys/0123456789Ab", {}, "missing_credentials", [KEY_LINE, BEARER_LINE]),
    ],
)
async def test_without_a_credential_the_challenge_has_no_error(
    open_scene: OpenScene,
    method: str,
    path: str,
    settings: dict[str, Any],
    code: str,
    lines: list[str],
) -> None:
    async with open_scene(**settings) as scene:
        json = {"name": "mine"} if method == "POST" else None
        answer = await scene.send(method, path, json=json)
        assert (answer.status_code, code_of(answer)) == (401, code)
        assert challenges_of(answer) == lines


@pytest.mark.parametrize("token", [NO_TOKEN, forge()])
@pytest.mark.parametrize("bearer_too", [True, False])
async def test_a_refused_key_is_challenged(open_scene: OpenScene, token: str, bearer_too: bool) -> None:
    async with open_scene(accept_bearer_keys=bearer_too) as scene:
        answer = await scene.get(token=token)
        assert answer.status_code == 401
        lines = challenges_of(answer)
        assert lines[0].startswith(KEY_LINE)
        assert len(lines) == (2 if bearer_too else 1)
        assert all(line.startswith(BEARER_LINE) for line in lines[1:])


@pytest.mark.parametrize("state", ["revoked", "disabled", "wrong origin"])
async def test_a_refused_right_secret_is_challenged(open_scene: OpenScene, state: str) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=["https://shop.example"])
        if state == "revoked":
            await scene.auth.keys.revoke(key.id)
        elif state == "disabled":
            await scene.auth.keys.update(key.id, enabled=False)
        answer = await scene.get(token=key.token, origin="https://evil.example")
        assert answer.status_code == 401
        lines = challenges_of(answer)
        assert lines[0].startswith(KEY_LINE)
        assert lines[1].startswith(BEARER_LINE)


async def test_an_invalid_session_is_reported_as_an_invalid_token(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        both = await scene.send("POST", "/notes", token=key.token, bearer="no-session")
        alone = await scene.get("/me", bearer="no-session")
        for answer in (both, alone):
            assert (answer.status_code, code_of(answer)) == (401, "invalid_session")
            bearer = [line for line in challenges_of(answer) if line.startswith("Bearer ")]
            assert len(bearer) == 1
            assert 'error="invalid_token"' in bearer[0]
        assert challenges_of(both)[0].startswith(KEY_LINE)
        assert len(challenges_of(alone)) == 1


async def test_a_forbidden_or_limited_request_is_not_a_401(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(scopes=[], hourly_limit=2)
        assert (await scene.get("/items", token=key.token)).status_code == 403
        assert (await scene.send("POST", "/notes", token=key.token)).status_code == 403
        assert (await scene.get(token=key.token)).status_code == 429


async def refusals_of(scene: Scene) -> list[httpx.Response]:
    """Return one refusal of every kind that is possible without an outage."""
    key = await scene.key(scopes=[], hourly_limit=4)
    closed = await scene.key(allowed_origins=["https://shop.example"])
    far = await scene.key(allowed_ips=["192.0.2.0/24"])
    session = await scene.session()
    answers = [
        await scene.get(),
        await scene.get(token=NO_TOKEN),
        await scene.get(token=forge()),
        await scene.get(token=closed.token, origin="https://evil.example"),
        await scene.get(token=far.token),
        await scene.get("/items", token=key.token),
        await scene.send("POST", "/notes", token=key.token),
        await scene.send("POST", "/notes", token=key.token, bearer="no-session"),
        await scene.get(token=key.token),
        await scene.get(token=key.token),
        await scene.get("/me"),
        await scene.get("/api-keys"),
        await scene.get("/api-keys/0123456789Ab", bearer=session),
    ]
    assert answers.pop(8).status_code == 200
    await scene.auth.keys.revoke(closed.id)
    answers.append(await scene.get(token=closed.token))
    answers.append(await scene.send("POST", f"/api-keys/{closed.id}/rotate", bearer=session, json={}))
    await scene.fail(20)
    answers.append(await scene.get(token=key.token))
    return answers


async def test_every_refusal_is_a_problem_document(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        answers = await refusals_of(scene)
    assert [code_of(answer) for answer in answers] == [
        "missing_api_key",
        "malformed_api_key",
        "invalid_api_key",
        "origin_not_allowed",
        "address_not_allowed",
        "insufficient_scope",
        "session_required",
        "invalid_session",
        "rate_limit_exceeded",
        "missing_session",
        "missing_credentials",
        "not_found",
        "revoked_api_key",
        "key_not_active",
        "address_blocked",
    ]
    for answer in answers:
        assert answer.headers["content-type"].startswith("application/problem+json")
        document = answer.json()
        assert document["status"] == answer.status_code
        for member in ("type", "title", "detail", "code"):
            assert isinstance(document[member], str), member
            assert document[member]
        assert " " in document["detail"]
        assert "\n" not in document["detail"]


async def test_a_missing_scope_is_named(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        narrow = await scene.key(scopes=["items:write"])
        document = (await scene.get("/items", token=narrow.token)).json()
        assert document["missing_scopes"] == ["items:read"]
        wide = await scene.key()
        session = await scene.session(scopes=[])
        answer = await scene.send("POST", "/scoped-notes", token=wide.token, bearer=session)
        assert answer.json()["missing_scopes"] == ["items:read"]
        answer = await scene.get("/api-keys", token=wide.token)
        assert answer.status_code == 403
        assert answer.json()["missing_scopes"] == ["keys:read"]


async def test_both_429_responses_state_when_to_retry_and_differ_in_detail(open_scene: OpenScene) -> None:
    async with open_scene(block_for_s=120, block_after_failures=1) as scene:
        key = await scene.key(hourly_limit=1)
        await scene.spend(key.token)
        capped = await scene.get(token=key.token)
        await scene.fail()
        blocked = await scene.get(token=key.token)
        assert (capped.status_code, blocked.status_code) == (429, 429)
        assert whole_seconds(capped.headers["retry-after"]) == LEFT_OF_THE_HOUR_S
        assert whole_seconds(blocked.headers["retry-after"]) == 120
        assert round(capped.json()["retry_after_s"]) == LEFT_OF_THE_HOUR_S
        assert round(blocked.json()["retry_after_s"]) == 120
        assert capped.json()["detail"] != blocked.json()["detail"]


async def test_parts_of_a_second_are_rounded_up(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=1)
        scene.clock.advance(0.25)
        await scene.spend(key.token)
        retry_after_s = whole_seconds((await scene.get(token=key.token)).headers["retry-after"])
        scene.clock.advance(retry_after_s)
        assert await scene.spend(key.token) == [200]


async def test_the_realm_is_a_setting(open_scene: OpenScene) -> None:
    async with open_scene(realm="The Acme API") as scene:
        lines = challenges_of(await scene.get())
        assert lines == ['api-key realm="The Acme API"', 'Bearer realm="The Acme API"']


async def test_errors_of_the_host_application_stay_unchanged(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        teapot = await scene.get("/teapot", token=key.token)
        assert (teapot.status_code, teapot.json()) == (418, {"detail": "short and stout"})
        assert teapot.headers["content-type"] == "application/json"
        nowhere = await scene.get("/nowhere")
        assert (nowhere.status_code, nowhere.json()) == (404, {"detail": "Not Found"})
        wrong_method = await scene.send("DELETE", "/open")
        assert wrong_method.json() == {"detail": "Method Not Allowed"}
        invalid = await scene.send("POST", "/validated", token=key.token, json={})
        assert invalid.status_code == 422
        assert invalid.json()["detail"][0]["loc"] == ["body", "text"]


async def test_an_unhandled_exception_stays_a_500_of_the_host(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        answer = await scene.get("/crash", token=key.token)
        assert answer.status_code == 500
        assert code_of(answer) is None


async def test_the_detail_of_a_missing_key_says_where_it_belongs(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        detail = (await scene.get()).json()["detail"]
        assert "api-key" in detail.lower() or "api key" in detail.lower()
