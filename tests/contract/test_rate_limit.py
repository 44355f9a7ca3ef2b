"""Section 3: the hourly limit in fixed windows, its exactness, and its headers."""

import asyncio
from typing import Any

import pytest

from tests.helpers.stage import (
    HOUR_S,
    LEFT_OF_THE_HOUR_S,
    OpenScene,
    code_of,
    quota_of,
    remaining_of,
    whole_seconds,
)

# Each limiter there is, and each server that one of them talks to.
STACKS = ("sqlite-memory", "postgres-valkey", "sqlite-redis6")

IETF = {"ratelimit", "ratelimit-policy"}
LEGACY = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


async def test_exactly_the_limit_is_admitted_in_a_clock_hour(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=3)
        assert await scene.spend(key.token, 5) == [200, 200, 200, 429, 429]
        scene.clock.advance(LEFT_OF_THE_HOUR_S - 1)
        refused = await scene.get(token=key.token)
        assert code_of(refused) == "rate_limit_exceeded"
        assert whole_seconds(refused.headers["retry-after"]) == 1
        scene.clock.advance(1)
        assert await scene.spend(key.token, 4) == [200, 200, 200, 429]


async def test_a_window_ends_with_the_clock_hour_and_not_an_hour_later(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=2)
        scene.clock.to_next_hour(HOUR_S - 1)
        assert await scene.spend(key.token, 3) == [200, 200, 429]
        scene.clock.advance(1)
        assert await scene.spend(key.token, 3) == [200, 200, 429]
        scene.clock.advance(HOUR_S)
        assert await scene.spend(key.token, 3) == [200, 200, 429]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
@pytest.mark.parametrize("path", ["/models", "/stream", "/asked-often"])
async def test_concurrent_requests_never_exceed_the_limit(open_scene: OpenScene, algorithm: str, path: str) -> None:
    async with open_scene(rate_limit_algorithm=algorithm) as scene:
        key = await scene.key(hourly_limit=10)
        session = await scene.session()
        answers = await asyncio.gather(*(scene.get(path, token=key.token, bearer=session) for _ in range(30)))
        admitted = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(admitted), len(refused)) == (10, 20)
        assert sorted(remaining_of(answer) for answer in admitted) == list(range(10))
        assert {remaining_of(answer) for answer in refused} == {0}


async def test_keys_do_not_share_a_limit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        one, other = await scene.key(hourly_limit=1), await scene.key(hourly_limit=1)
        assert await scene.spend(one.token, 2) == [200, 429]
        assert await scene.spend(other.token, 2) == [200, 429]


async def test_a_key_without_its_own_limit_has_the_default(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=2) as scene:
        key = await scene.key()
        assert quota_of(await scene.get(token=key.token)) == 2
        assert await scene.spend(key.token, 2) == [200, 429]


async def test_the_default_of_the_default_is_a_thousand(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert quota_of(await scene.get(token=key.token)) == 1000


async def test_without_a_default_a_key_has_no_limit_and_no_header(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=None, rate_limit_headers="both") as scene:
        key = await scene.key()
        answer = await scene.get(token=key.token)
        assert answer.status_code == 200
        assert not (IETF | LEGACY) & set(answer.headers)
        assert answer.json()["remaining"] is None
        capped = await scene.key(hourly_limit=1)
        assert await scene.spend(capped.token, 2) == [200, 429]


async def test_a_changed_limit_takes_effect_immediately(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=10)
        await scene.spend(key.token, 5)
        await scene.auth.keys.update(key.id, hourly_limit=5)
        assert code_of(await scene.get(token=key.token)) == "rate_limit_exceeded"
        await scene.auth.keys.update(key.id, hourly_limit=7)
        assert await scene.spend(key.token, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ietf", IETF),
        ("legacy", LEGACY),
        ("both", IETF | LEGACY),
        ("none", set()),
    ],
)
async def test_headers_have_the_forms_of_their_mode(open_scene: OpenScene, mode: str, expected: set[str]) -> None:
    async with open_scene(rate_limit_headers=mode) as scene:
        key = await scene.key(hourly_limit=2)
        ends_at = round(scene.clock.now) + LEFT_OF_THE_HOUR_S
        for r in (1, 0, 0):
            answer = await scene.get(token=key.token)
            sent = (IETF | LEGACY) & set(answer.headers)
            assert sent == expected
            values = {
                "ratelimit-policy": '"hour";q=2;w=3600',
                "ratelimit": f'"hour";r={r};t={LEFT_OF_THE_HOUR_S}',
                "x-ratelimit-limit": "2",
                "x-ratelimit-remaining": str(r),
                "x-ratelimit-reset": str(ends_at),
            }
            assert {name: answer.headers[name] for name in sent} == {name: values[name] for name in expected}
        assert answer.status_code == 429
        assert whole_seconds(answer.headers["retry-after"]) == LEFT_OF_THE_HOUR_S


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models", 200),
        ("GET", "/maybe", 200),
        ("GET", "/items", 403),
        ("POST", "/notes", 403),
        ("GET", "/stream", 200),
        ("GET", "/hand-made", 200),
        ("GET", "/teapot", 418),
        ("POST", "/validated", 422),
        ("GET", "/api-keys", 403),
    ],
)
async def test_every_response_to_a_counted_request_states_the_limit(
    open_scene: OpenScene, method: str, path: str, status: int
) -> None:
    async with open_scene() as scene:
        key = await scene.key(scopes=["items:write"], hourly_limit=5)
        answer = await scene.send(method, path, token=key.token)
        assert answer.status_code == status
        assert answer.headers["ratelimit-policy"] == '"hour";q=5;w=3600'
        assert answer.headers["ratelimit"] == f'"hour";r=4;t={LEFT_OF_THE_HOUR_S}'
        assert len(answer.headers.get_list("ratelimit")) == 1


async def test_a_response_to_an_invalid_session_with_a_key_states_the_limit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=5)
        answer = await scene.send("POST", "/notes", token=key.token, bearer="no-session")
        assert answer.status_code == 401
        assert remaining_of(answer) == 4


async def test_odd_responses_keep_what_they_are(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        streamed = await scene.get("/stream", token=key.token)
        assert streamed.text == "one two three"
        hand_made = await scene.get("/hand-made", token=key.token)
        assert (hand_made.content, hand_made.headers["x-own"]) == (b"raw", "kept")


async def test_a_response_without_a_key_states_no_limit(open_scene: OpenScene) -> None:
    async with open_scene(rate_limit_headers="both") as scene:
        session = await scene.session()
        for answer in (
            await scene.get("/open"),
            await scene.get("/models"),
            await scene.get("/maybe"),
            await scene.get("/me", bearer=session),
        ):
            assert not (IETF | LEGACY) & set(answer.headers)


async def test_a_request_is_counted_once_however_many_ask(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=5)
        session = await scene.session()
        for r in (4, 3, 2):
            answer = await scene.get("/asked-often", token=key.token, bearer=session)
            assert answer.status_code == 200
            assert answer.json()["ids"] == [key.id]
            assert answer.json()["remaining"] == r
            assert remaining_of(answer) == r


@pytest.mark.parametrize(
    ("limit", "before", "into_next_s", "admitted"),
    [
        (10, 10, 0, 0),
        (10, 10, 1800, 5),
        (8, 8, 900, 2),
        (8, 8, 2700, 6),
        (8, 4, 900, 5),
        (100, 100, 36, 1),
        (10, 10, HOUR_S, 10),
        (10, 0, 0, 10),
    ],
)
async def test_a_sliding_window_weighs_the_hour_before(
    open_scene: OpenScene, limit: int, before: int, into_next_s: int, admitted: int
) -> None:
    async with open_scene(rate_limit_algorithm="sliding_window") as scene:
        key = await scene.key(hourly_limit=limit)
        assert await scene.spend(key.token, before) == [200] * before
        scene.clock.to_next_hour(into_next_s)
        statuses = await scene.spend(key.token, admitted + 3)
        assert statuses == [200] * admitted + [429] * 3


async def test_a_sliding_window_states_what_is_left(open_scene: OpenScene) -> None:
    async with open_scene(rate_limit_algorithm="sliding_window") as scene:
        key = await scene.key(hourly_limit=10)
        first = await scene.get(token=key.token)
        assert first.headers["ratelimit"] == f'"hour";r=9;t={LEFT_OF_THE_HOUR_S}'
        await scene.spend(key.token, 9)
        scene.clock.to_next_hour(1800)
        assert remaining_of(await scene.get(token=key.token)) == 4


@pytest.mark.parametrize("into_next_s", [None, 0, 1800])
async def test_a_sliding_refusal_says_when_one_unit_is_free(open_scene: OpenScene, into_next_s: int | None) -> None:
    async with open_scene(rate_limit_algorithm="sliding_window") as scene:
        key = await scene.key(hourly_limit=10)
        await scene.spend(key.token, 10)
        if into_next_s is not None:
            scene.clock.to_next_hour(into_next_s)
            await scene.spend(key.token, 10)
        refused = await scene.get(token=key.token)
        assert refused.status_code == 429
        retry_after_s = whole_seconds(refused.headers["retry-after"])
        assert refused.headers["ratelimit"] == f'"hour";r=0;t={retry_after_s}'
        scene.clock.advance(max(retry_after_s - 2, 0))
        assert await scene.spend(key.token) == [429]
        scene.clock.advance(min(retry_after_s, 2))
        assert await scene.spend(key.token) == [200]


async def test_refusals_do_not_postpone_a_sliding_window(open_scene: OpenScene) -> None:
    async with open_scene(rate_limit_algorithm="sliding_window") as scene:
        key = await scene.key(hourly_limit=4)
        assert await scene.spend(key.token, 24) == [200] * 4 + [429] * 20
        scene.clock.to_next_hour(1800)
        assert await scene.spend(key.token, 3) == [200, 200, 429]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
async def test_the_principal_has_its_limit(open_scene: OpenScene, algorithm: str) -> None:
    settings: dict[str, Any] = {"rate_limit_algorithm": algorithm}
    async with open_scene(**settings) as scene:
        key = await scene.key(hourly_limit=9)
        answer = (await scene.get(token=key.token)).json()
        assert (answer["hourly_limit"], answer["remaining"]) == (9, 8)


async def test_a_peer_that_is_named_like_a_key_counts_apart_from_it(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that trusts every ``X-Forwarded-For`` takes the peer's name from the client."""
    monkeypatch.setattr("fastapi_keyauth.keys.management.new_key_id", lambda: "abcdefgh1234")
    async with open_scene() as scene:
        # Two units, because the first failure of a peer sets its count to one.
        key = await scene.key(hourly_limit=2)
        assert await scene.spend(key.token, 2) == [200, 200]
        assert code_of(await scene.get(token="wrong", address=key.id)) == "malformed_api_key"
        assert code_of(await scene.get(token=key.token)) == "rate_limit_exceeded"
