"""Section 5: preflights, the origin in actual responses, and the lists of keys as a rule for browsers."""

import httpx
import pytest

from tests.helpers.stage import OpenScene, Scene, code_of
from tests.helpers.tokens import NO_TOKEN
from tests.helpers.waiting import until

SITE = "https://app.example"
SHOP = "https://shop.example"
EVIL = "https://evil.example"
FOLLOWS_WITHIN_S = 5


async def preflight(
    scene: Scene,
    origin: str,
    *,
    path: str = "/models",
    method: str = "GET",
    headers: str | None = "api-key, authorization, x-trace-id",
) -> httpx.Response:
    """Send the preflight that a browser sends before a request."""
    lines = [("access-control-request-method", method)]
    if headers is not None:
        lines.append(("access-control-request-headers", headers))
    return await scene.send("OPTIONS", path, origin=origin, headers=lines)


def listed(answer: httpx.Response, name: str) -> set[str]:
    """Return a comma-separated header as a set of lower-case words."""
    return {word.strip().lower() for word in answer.headers.get(name, "").split(",") if word.strip()}


def allows(answer: httpx.Response, origin: str) -> bool:
    """Return whether a browser would let the origin read the response."""
    value = answer.headers.get("access-control-allow-origin")
    assert value in (None, origin)
    return value is not None


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/models", "GET"),
        ("/notes", "POST"),
        ("/open", "GET"),
        ("/api-keys", "POST"),
        ("/api-keys/0123456789Ab", "PATCH"),
        ("/api-keys/0123456789Ab", "DELETE"),
    ],
)
async def test_a_preflight_from_an_allowed_origin_is_answered(open_scene: OpenScene, path: str, method: str) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        answer = await preflight(scene, SITE, path=path, method=method)
        assert answer.status_code in (200, 204)
        assert allows(answer, SITE)
        assert method.lower() in listed(answer, "access-control-allow-methods")
        asked = {"api-key", "authorization", "x-trace-id"}
        assert asked <= listed(answer, "access-control-allow-headers")
        assert "origin" in listed(answer, "vary")


@pytest.mark.parametrize("headers", [None, "", "x-trace-id", "x-api-key, content-type"])
async def test_preflight_that_announces_no_key_is_the_applications(open_scene: OpenScene, headers: str | None) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        answer = await preflight(scene, SITE, headers=headers)
        assert answer.status_code == 405
        assert "access-control-allow-methods" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


async def test_preflight_that_announces_no_key_does_not_reveal_the_origin_of_a_key(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        await scene.key(allowed_origins=[SHOP])
        assert allows(await preflight(scene, SHOP), SHOP)  # the list of keys has been read
        for path in ("/models", "/notes", "/open", "/api-keys", "/nowhere"):
            answer = await preflight(scene, SHOP, path=path, headers=None)
            assert answer.headers.keys().isdisjoint({"access-control-allow-origin", "access-control-expose-headers"})


@pytest.mark.parametrize(
    ("accept_bearer_keys", "headers", "status"),
    [
        (True, "authorization", 204),
        (False, "authorization", 405),
        (True, "content-type,X-Acme-Key", 204),
        (False, "x-acme-key", 204),
        (True, "api-key", 405),
    ],
)
async def test_preflight_announces_the_header_of_the_setting_or_a_bearer_value(
    open_scene: OpenScene, accept_bearer_keys: bool, headers: str, status: int
) -> None:
    settings = {"header_name": "x-acme-key", "accept_bearer_keys": accept_bearer_keys}
    async with open_scene(allowed_origins=[SITE], **settings) as scene:
        assert (await preflight(scene, SITE, headers=headers)).status_code == status


@pytest.mark.parametrize(
    "origin",
    [EVIL, "https://app.example.evil.example", "http://app.example", SITE + ":8443", "null"],
)
async def test_a_preflight_from_another_origin_is_not_allowed(open_scene: OpenScene, origin: str) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        answer = await preflight(scene, origin)
        assert answer.status_code < 500
        assert "access-control-allow-origin" not in answer.headers


async def test_a_star_allows_any_origin(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=["*"]) as scene:
        key = await scene.key()
        for answer in (
            await preflight(scene, EVIL),
            await scene.get(token=key.token, origin=EVIL),
            await scene.get(origin=EVIL),
        ):
            assert allows(answer, EVIL)


async def test_an_origin_in_a_keys_list_is_allowed(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        await scene.key(allowed_origins=[SHOP])

        async def shop_is_allowed() -> bool:
            return allows(await preflight(scene, SHOP), SHOP)

        await until(shop_is_allowed, FOLLOWS_WITHIN_S + 1)
        assert not allows(await preflight(scene, EVIL), EVIL)


@pytest.mark.parametrize("change", ["emptied", "moved", "disabled", "revoked", "expired"])
async def test_a_preflight_follows_a_change_to_a_keys_list(open_scene: OpenScene, change: str) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=[SHOP], expires_at=scene.clock.moment(600))

        async def shop_is_allowed() -> bool:
            return allows(await preflight(scene, SHOP), SHOP)

        async def shop_is_not_allowed() -> bool:
            return not await shop_is_allowed()

        await until(shop_is_allowed, FOLLOWS_WITHIN_S + 1)
        if change == "emptied":
            await scene.auth.keys.update(key.id, allowed_origins=[])
        elif change == "moved":
            await scene.auth.keys.update(key.id, allowed_origins=[SITE])
        elif change == "disabled":
            await scene.auth.keys.update(key.id, enabled=False)
        elif change == "revoked":
            await scene.auth.keys.revoke(key.id)
        else:
            scene.clock.advance(600)
        scene.clock.advance(FOLLOWS_WITHIN_S + 0.1)
        await until(shop_is_not_allowed, FOLLOWS_WITHIN_S + 1)


async def test_a_preflight_is_not_counted_and_not_blocked(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE], block_after_failures=2) as scene:
        key = await scene.key(hourly_limit=1)
        for _ in range(5):
            await preflight(scene, SITE)
            await preflight(scene, EVIL)
        assert await scene.spend(key.token, 2) == [200, 429]
        assert await scene.fail(3) == [401, 401, 429]
        answer = await preflight(scene, SITE)
        assert answer.is_success
        assert allows(answer, SITE)


async def test_options_without_the_request_method_is_not_a_preflight(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        answer = await scene.send("OPTIONS", "/open", origin=SITE)
        assert answer.status_code == 405


async def test_actual_responses_echo_an_allowed_origin(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE], block_after_failures=3) as scene:
        key = await scene.key(scopes=[], hourly_limit=6)
        answers = [
            await scene.get(token=key.token, origin=SITE),
            await scene.get("/items", token=key.token, origin=SITE),
            await scene.get("/stream", token=key.token, origin=SITE),
            await scene.get("/hand-made", token=key.token, origin=SITE),
            await scene.get("/teapot", token=key.token, origin=SITE),
            await scene.send("POST", "/validated", token=key.token, origin=SITE, json={}),
            await scene.get(token=key.token, origin=SITE),
            await scene.get(origin=SITE),
            await scene.get("/maybe", origin=SITE),
            await scene.get("/api-keys", origin=SITE),
            *[await scene.get(token=NO_TOKEN, origin=SITE) for _ in range(4)],
        ]
        statuses = [200, 403, 200, 200, 418, 422, 429, 401, 200, 401, 401, 401, 401, 429]
        assert [answer.status_code for answer in answers] == statuses
        for answer in answers:
            assert allows(answer, SITE)
            assert "origin" in listed(answer, "vary")
            exposed = listed(answer, "access-control-expose-headers")
            assert {"ratelimit", "ratelimit-policy", "retry-after"} <= exposed
            assert len(answer.headers.get_list("access-control-allow-origin")) == 1


@pytest.mark.parametrize("origins", [[SITE], ["*"]])
async def test_responses_of_routes_that_take_no_key_are_left_untouched(
    open_scene: OpenScene, origins: list[str]
) -> None:
    async with open_scene(allowed_origins=origins) as scene:
        await scene.key(allowed_origins=[SITE])
        for path, status in (("/open", 200), ("/me", 401), ("/nowhere", 404)):
            answer = await scene.get(path, origin=SITE)
            assert answer.status_code == status
            assert not [name for name in answer.headers if name.startswith("access-control-") or name == "vary"], path


async def test_a_response_to_a_request_without_origin_has_no_cors_headers(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=["*"]) as scene:
        answer = await scene.get(token=(await scene.key()).token)
        assert not [name for name in answer.headers if name.startswith("access-control-") or name == "vary"]


async def test_an_error_that_comes_before_the_key_is_read_is_readable(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        answer = await scene.send("POST", "/validated", origin=SITE, content=b"{")
        assert allows(answer, SITE), answer.text


async def test_an_admitted_keys_response_allows_no_origin_of_another_key(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        server, browser = await scene.key(), await scene.key(allowed_origins=[SHOP])
        assert allows(await scene.get(origin=SHOP), SHOP)  # no key was identified, so any key's list counts
        for key in (server, browser):
            answer = await scene.get(token=key.token, origin=SHOP)
            assert (answer.status_code, allows(answer, SHOP)) == (200, key is browser)


async def test_legacy_headers_are_exposed_if_they_are_sent(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE], rate_limit_headers="both") as scene:
        key = await scene.key()
        answer = await scene.get(token=key.token, origin=SITE)
        assert {
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
        } <= listed(answer, "access-control-expose-headers")


async def test_a_key_of_a_listed_origin_is_admitted_and_echoed(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=[SITE, SHOP])
        for origin in (SITE, SHOP):
            answer = await scene.get(token=key.token, origin=origin)
            assert answer.status_code == 200
            assert allows(answer, origin)
            assert "origin" in listed(answer, "vary")


@pytest.mark.parametrize("origin", [EVIL, "http://shop.example", SHOP + ":8443", "null", SHOP + "."])
async def test_another_origin_is_refused(open_scene: OpenScene, origin: str) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=[SHOP])
        answer = await scene.get(token=key.token, origin=origin)
        assert (answer.status_code, code_of(answer)) == (401, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


async def test_a_refusal_can_be_read_by_an_origin_of_the_setting(open_scene: OpenScene) -> None:
    async with open_scene(allowed_origins=[SITE]) as scene:
        key = await scene.key(allowed_origins=[SHOP])
        answer = await scene.get(token=key.token, origin=SITE)
        assert code_of(answer) == "origin_not_allowed"
        assert allows(answer, SITE)


async def test_a_block_is_reported_alike_whether_the_key_is_cached_or_not(open_scene: OpenScene) -> None:
    """The block is checked before the key, so the origins of the key do not affect this response."""
    async with open_scene(block_after_failures=1) as scene:
        key = await scene.key(allowed_origins=[SHOP])
        await scene.key(allowed_origins=[EVIL])
        assert (await scene.get(token=key.token, origin=SHOP)).status_code == 200
        await scene.fail()
        for _ in range(2):
            answer = await scene.get(token=key.token, origin=EVIL)
            assert (code_of(answer), allows(answer, EVIL)) == ("address_blocked", True)


async def test_a_request_without_origin_passes_a_list(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=[SHOP])
        answer = await scene.get(token=key.token)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


async def test_an_empty_list_admits_any_origin(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_origins=[])
        assert (await scene.get(token=key.token, origin=EVIL)).status_code == 200
        await scene.auth.keys.update(key.id, allowed_origins=[SHOP])
        assert code_of(await scene.get(token=key.token, origin=EVIL)) == "origin_not_allowed"
