"""Section 4: the beginning, the duration and the effect of a block."""

import asyncio

import pytest

from tests.helpers.asgi import call
from tests.helpers.stage import ELSEWHERE, HOME, OpenScene, Scene, code_of, whole_seconds
from tests.helpers.tokens import NO_TOKEN, forge

# Each limiter there is, and each server that one of them talks to.
STACKS = ("sqlite-memory", "postgres-valkey", "sqlite-redis6", "sqlite-cluster")


async def is_blocked(scene: Scene, address: str = HOME) -> bool:
    """Return whether the address is blocked. The request has no key, so nothing is counted."""
    key = await scene.key(name="probe")
    answer = await scene.get(token=key.token, address=address)
    assert answer.status_code in (200, 429)
    return code_of(answer) == "address_blocked"


async def test_the_tenth_failure_is_a_401_and_the_next_request_a_429(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert await scene.fail(10) == [401] * 10
        answer = await scene.get(token=key.token)
        assert (answer.status_code, code_of(answer)) == (429, "address_blocked")
        assert whole_seconds(answer.headers["retry-after"]) == 300
        assert await scene.fail() == [429]


async def test_nine_failures_block_no_address(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        assert await scene.fail(9) == [401] * 9
        assert not await is_blocked(scene)


async def test_a_success_does_not_reset_the_count(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        await scene.fail(9)
        assert await scene.spend(key.token, 3) == [200] * 3
        assert await scene.fail() == [401]
        assert await is_blocked(scene)


async def test_every_kind_of_invalid_token_counts_equally(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=4) as scene:
        key = await scene.key()
        for token in (NO_TOKEN, forge(), forge(key_id=key.id)):
            assert (await scene.get(token=token)).status_code == 401
        answer = await scene.get(headers=[("api-key", key.token), ("api-key", key.token)])
        assert code_of(answer) == "malformed_api_key"
        assert await is_blocked(scene)


async def test_invalid_sessions_are_not_failed_attempts(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=2) as scene:
        key = await scene.key()
        for _ in range(4):
            assert (await scene.get("/me", bearer="nonsense")).status_code == 401
            await scene.send("POST", "/notes", token=key.token, bearer="nonsense")
        assert not await is_blocked(scene)


@pytest.mark.parametrize("limits", [(10, 300, 300), (3, 60, 900), (1, 5, 7)])
async def test_a_block_lasts_as_long_as_set_and_the_count_starts_again(
    open_scene: OpenScene, limits: tuple[int, int, int]
) -> None:
    failures, window_s, block_s = limits
    async with open_scene(block_after_failures=failures, failure_window_s=window_s, block_for_s=block_s) as scene:
        await scene.fail(failures)
        scene.clock.advance(block_s - 1)
        answer = await scene.get(token=(await scene.key()).token)
        assert answer.status_code == 429
        assert whole_seconds(answer.headers["retry-after"]) == 1
        scene.clock.advance(2)
        assert not await is_blocked(scene)
        assert await scene.fail(failures) == [401] * failures
        assert await is_blocked(scene)


async def test_the_count_starts_again_even_if_the_window_outlasts_the_block(
    open_scene: OpenScene,
) -> None:
    async with open_scene(failure_window_s=3000, block_for_s=10, block_after_failures=5) as scene:
        await scene.fail(5)
        scene.clock.advance(11)
        assert await scene.fail(4) == [401] * 4
        assert not await is_blocked(scene)
        assert await scene.fail() == [401]
        assert await is_blocked(scene)


async def test_requests_during_a_block_do_not_extend_it(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=2) as scene:
        await scene.fail(2)
        for _ in range(5):
            scene.clock.advance(50)
            assert await scene.fail(5) == [429] * 5
        assert await is_blocked(scene)
        scene.clock.advance(51)
        assert not await is_blocked(scene)
        assert await scene.fail() == [401]
        assert not await is_blocked(scene)


async def test_the_window_is_counted_from_the_first_failure(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=4, failure_window_s=300) as scene:
        await scene.fail(1)
        scene.clock.advance(290)
        await scene.fail(2)
        scene.clock.advance(11)
        assert await scene.fail(1) == [401]
        assert not await is_blocked(scene)


async def test_failures_late_in_the_window_still_count(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=4, failure_window_s=300) as scene:
        await scene.fail(1)
        scene.clock.advance(298)
        await scene.fail(3)
        assert await is_blocked(scene)


async def test_an_old_window_leaves_nothing_behind(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for _ in range(4):
            assert await scene.fail(9) == [401] * 9
            scene.clock.advance(301)
        assert not await is_blocked(scene)


async def test_a_flood_of_concurrent_failures_is_blocked(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        statuses = [
            answer.status_code for answer in await asyncio.gather(*(scene.get(token=NO_TOKEN) for _ in range(40)))
        ]
        assert set(statuses) <= {401, 429}
        assert statuses.count(401) >= 10
        assert await is_blocked(scene)


async def test_addresses_are_blocked_one_by_one(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        await scene.fail(10)
        assert await is_blocked(scene)
        assert not await is_blocked(scene, ELSEWHERE)
        assert not await is_blocked(scene, "203.0.113.8")


@pytest.mark.parametrize("path", ["/models", "/maybe", "/api-keys/current", "/items", "/stream"])
async def test_a_block_holds_on_every_route_that_takes_a_key(open_scene: OpenScene, path: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        await scene.fail(10)
        assert code_of(await scene.get(path, token=key.token)) == "address_blocked"
        assert code_of(await scene.get(path, bearer=key.token)) == "address_blocked"


async def test_a_block_does_not_affect_sessions_or_open_routes(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        await scene.fail(10)
        assert (await scene.get("/me", bearer=session)).status_code == 200
        assert (await scene.get("/api-keys", bearer=session)).status_code == 200
        assert (await scene.get("/open")).status_code == 200
        assert (await scene.get()).status_code == 401


async def test_a_blocked_request_uses_no_unit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=2)
        await scene.fail(10)
        assert await scene.spend(key.token, 5) == [429] * 5
        answers = [await scene.get(token=key.token, address=ELSEWHERE) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_valid_keys_can_be_exempt_from_blocks(open_scene: OpenScene) -> None:
    async with open_scene(block_spares_valid_keys=True) as scene:
        key = await scene.key(hourly_limit=1)
        await scene.fail(10)
        assert (await scene.get(token=key.token)).status_code == 200
        assert code_of(await scene.get(token=key.token)) == "rate_limit_exceeded"
        for token in (NO_TOKEN, forge(), forge(key_id=key.id)):
            assert code_of(await scene.get(token=token)) == "address_blocked"
        assert code_of(await scene.get()) == "missing_api_key"


async def test_sparing_valid_keys_does_not_extend_a_block(open_scene: OpenScene) -> None:
    async with open_scene(block_spares_valid_keys=True) as scene:
        await scene.fail(10)
        scene.clock.advance(200)
        await scene.fail(20)
        scene.clock.advance(101)
        assert await scene.fail(9) == [401] * 9


@pytest.mark.parametrize(
    ("settings", "one", "other", "together"),
    [
        ({}, "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ({}, "2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ({"ipv6_prefix_length": 128}, "2001:db8:1:2::1", "2001:db8:1:2::2", False),
        ({"ipv6_prefix_length": 128}, "2001:db8::1", "2001:0db8:0:0::0001", True),
        ({"ipv6_prefix_length": 48}, "2001:db8:1:2::1", "2001:db8:1:ffff::1", True),
        ({"ipv6_prefix_length": 48}, "2001:db8:1:2::1", "2001:db8:2:2::1", False),
        ({}, "::ffff:203.0.113.9", "203.0.113.9", True),
        ({}, "203.0.113.9", "::FFFF:cb00:7109", True),
        ({}, "::ffff:203.0.113.9", "::ffff:203.0.113.10", False),
        ({"ipv6_prefix_length": 32}, "::ffff:203.0.113.9", "::ffff:203.0.113.10", False),
        ({}, "203.0.113.9", "203.0.113.10", False),
        ({}, "64:ff9b::203.0.113.9", "203.0.113.9", True),
        ({}, "64:ff9b::203.0.113.9", "64:ff9b::203.0.113.10", False),
        ({}, "::ffff:0:203.0.113.9", "64:ff9b::203.0.113.9", True),
        ({}, "::ffff:0:203.0.113.9", "::ffff:0:203.0.113.10", False),
        ({}, "64:ff9b:1::203.0.113.9", "64:ff9b:1::203.0.113.10", True),
    ],
)
async def test_which_addresses_share_a_count(
    open_scene: OpenScene, settings: dict[str, int], one: str, other: str, together: bool
) -> None:
    async with open_scene(**settings) as scene:
        await scene.fail(5, one)
        await scene.fail(5, other)
        assert await is_blocked(scene, one) is together
        assert await is_blocked(scene, other) is together


async def test_without_an_address_nothing_is_blocked(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=2) as scene:
        key = await scene.key()
        bad = [(b"api-key", NO_TOKEN.encode())]
        for _ in range(5):
            answer = await call(scene.app, headers=bad, peer=None)
            assert (answer.status, answer.code) == (401, "malformed_api_key")
        good = [(b"api-key", key.token.encode())]
        assert (await call(scene.app, headers=good, peer=None)).status == 200


async def test_without_an_address_an_allow_list_refuses(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_ips=["0.0.0.0/0", "::/0"])
        headers = [(b"api-key", key.token.encode())]
        answer = await call(scene.app, headers=headers, peer=None)
        assert (answer.status, answer.code) == (401, "address_not_allowed")
