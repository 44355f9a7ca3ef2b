"""What the checks of a key promise beyond the contract's routes: outcomes that are kept, and requests from memory."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from fastapi_keyauth import (
    AddressBlocked,
    AddressNotAllowed,
    InvalidApiKey,
    KeyAuth,
    KeyPrincipal,
    MalformedApiKey,
    RateLimitExceeded,
)
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, token_digest
from fastapi_keyauth.errors import LimiterUnavailable, StoreUnavailable
from fastapi_keyauth.limiter import Decision, LimitCheck, Limiter
from tests.helpers.keys import Gate, make_key, store_of
from tests.helpers.stage import Clock

MakeAuth = Callable[..., KeyAuth]
ADDRESS, OTHER = "192.0.2.1", "198.51.100.1"
ON_MEMORY = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
"""The limiter that gives an allowance to every key that is in use."""


def request(token: str, address: str = ADDRESS) -> AuthContext:
    return AuthContext(Credentials(token), AddressResolver([], 64).resolve((address, 1), []), None)


async def check(auth: KeyAuth, context: AuthContext) -> KeyPrincipal:
    return await auth._parts.authenticator.authenticate_key(context)


async def warm(auth: KeyAuth, token: str) -> KeyPrincipal:
    """Have an allowance admit the last of a few requests."""
    for _ in range(4):
        principal = await check(auth, request(token))
    verified = auth._parts.authenticator._verifier.find_verified(token_digest(token))
    assert verified is not None
    assert verified.allowance is not None
    return principal


async def test_a_refused_request_stays_refused_and_is_one_failed_attempt(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), block_after_failures=2) as auth:
        created = await make_key(auth)
        context = request(created.token[:-1])
        refusals = []
        for _ in range(3):
            with pytest.raises(MalformedApiKey) as refused:
                await check(auth, context)
            refusals.append(refused.value)
        assert refusals[0] is refusals[1] is refusals[2]
        assert isinstance(await check(auth, request(created.token)), KeyPrincipal)  # the address is not blocked


@ON_MEMORY
async def test_a_request_over_the_limit_stays_refused_and_counts_as_one(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=4)
        await warm(auth, created.token)
        context = request(created.token)
        refusals = []
        for _ in range(3):
            with pytest.raises(RateLimitExceeded) as refused:
                await check(auth, context)
            refusals.append(refused.value)
        assert refusals[0] is refusals[1] is refusals[2]
        assert sum(hour.refused for hour in await auth.keys.usage(created.key.id)) == 1


async def test_an_admitted_request_is_charged_once(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=2)
        context = request(created.token)
        first = await check(auth, context)
        assert [await check(auth, context) for _ in range(3)] == [first] * 3
        assert (await check(auth, request(created.token))).remaining == 0


@ON_MEMORY
async def test_a_cost_that_was_charged_is_not_charged_again(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=100)
        context = request(created.token)
        await check(auth, context)
        left = []
        for cost in (5, 5, 3, 7):
            await auth._parts.authenticator.raise_cost(context, (("requests", cost),))
            left.append((await check(auth, context)).remaining)
        assert left == [95, 95, 95, 93]
        assert await _admitted(auth, created.key.id) == 7


@ON_MEMORY
async def test_a_cost_that_is_added_leaves_the_generation_with_which_the_row_was_read(make_auth: MakeAuth) -> None:
    """A running request is checked again by this generation: a later one would hide the change in between."""
    async with make_auth(clock=Clock()) as auth:
        created = await make_key(auth)
        for _ in range(3):  # the limiter gives a generation to a key that it has seen
            context = request(created.token)
            await check(auth, context)
        assert context.decision is not None
        before = context.decision.generation
        await auth.keys.update(created.key.id, name="other")
        await auth._parts.authenticator.raise_cost(context, (("requests", 5),))
        assert context.decision.generation == before != ""


@ON_MEMORY
async def test_a_difference_that_could_not_be_charged_is_charged_when_it_is_tried_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Decision:
        raise LimiterUnavailable("test")

    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=100)
        context = request(created.token)
        await check(auth, context)
        with monkeypatch.context() as patch:
            patch.setattr(auth._parts.authenticator.limiter, "check", fail)
            with pytest.raises(LimiterUnavailable):
                await auth._parts.authenticator.raise_cost(context, (("requests", 5),))
        await auth._parts.authenticator.raise_cost(context, (("requests", 5),))
        assert (await check(auth, context)).remaining == 95


@ON_MEMORY
async def test_an_allowance_does_not_admit_an_address_that_is_not_in_the_list(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", allowed_ips=[ADDRESS])
        await warm(auth, created.token)
        with pytest.raises(AddressNotAllowed):
            await check(auth, request(created.token, OTHER))
        await check(auth, request(created.token))


@ON_MEMORY
async def test_an_allowance_does_not_admit_a_request_that_costs_more_than_one_unit(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=100)
        before = (await warm(auth, created.token)).remaining
        context = request(created.token)
        context.cost = (("requests", 5),)
        assert before is not None
        assert (await check(auth, context)).remaining == before - 5


@ON_MEMORY
async def test_a_request_that_an_allowance_admits_is_counted_like_any_other(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=100)
        await warm(auth, created.token)
        context = request(created.token)
        principal = await check(auth, context)
        assert (principal.id, principal.remaining) == (created.key.id, 95)
        assert context.key is not None
        assert (context.key.id, list(context.states)[:1]) == (created.key.id, [95])
        assert await _admitted(auth, created.key.id) == 5


@ON_MEMORY
@pytest.mark.parametrize("path", ["allowance", "limiter", "question"])
async def test_metrics_count_each_admitted_request_and_each_row_that_is_read_once(
    make_auth: MakeAuth, path: str
) -> None:
    """A warm key is admitted by its allowance, by a limiter that decides by itself, or by one that must be asked."""
    algorithm = "fixed_window" if path == "allowance" else "sliding_window"
    async with make_auth(clock=Clock(), rate_limit_algorithm=algorithm, max_staleness_s=3600) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", hourly_limit=100)
        if path == "question":
            auth._parts.authenticator.limiter = cast("Limiter", AskedLimiter(auth._parts.authenticator.limiter))
        counters = auth._parts.metrics.counters

        async def counted(requests: int) -> tuple[int, int, int, int]:
            before = counters.admitted_from_memory, counters.admitted_by_row, counters.missed, counters.stale
            for _ in range(requests):
                assert (await check(auth, request(created.token))).id == created.key.id
            from_memory, by_row, missed, stale = before
            return (
                counters.admitted_from_memory - from_memory,
                counters.admitted_by_row - by_row,
                counters.missed - missed,
                counters.stale - stale,
            )

        assert await counted(1) == (0, 1, 1, 0)
        assert await counted(1) in ((0, 1, 0, 1), (1, 0, 0, 0))  # the limiter knows the key since the first request
        assert await counted(4) == (4, 0, 0, 0)
        await auth.keys.update(created.key.id, name="other")
        assert await counted(2) == (1, 1, 0, 1)
        assert await _admitted(auth, created.key.id) == 8


@ON_MEMORY
@pytest.mark.parametrize("is_verified", [True, False])
async def test_a_known_block_is_refused_without_asking_the_limiter_or_naming_the_key(
    make_auth: MakeAuth, is_verified: bool
) -> None:
    async with make_auth(clock=Clock(), rate_limit_algorithm="sliding_window") as auth:
        created = await make_key(auth)
        if is_verified:
            await check(auth, request(created.token))
        limiter = AskedLimiter(auth._parts.authenticator.limiter)
        auth._parts.authenticator.limiter = cast("Limiter", limiter)
        limiter.known_blocks[ADDRESS] = 7
        context = request(created.token)
        with pytest.raises(AddressBlocked) as refused:
            await check(auth, context)
        assert (refused.value.retry_after_s, context.key, limiter.asked) == (7, None, 0)
        await check(auth, request(created.token, OTHER))
        assert limiter.asked > 0


@ON_MEMORY
async def test_only_the_attempt_that_begins_a_block_says_so(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), block_after_failures=3) as auth:
        unknown = format_token("ka", "live", new_key_id(), new_secret())
        begins = []
        for token in ("malformed", unknown, unknown):  # an unknown token is found in the cache the second time
            with pytest.raises((MalformedApiKey, InvalidApiKey)) as refused:
                await check(auth, request(token))
            begins.append(refused.value.begins_block)
        assert begins == [False, False, True]
        for token in ("malformed", unknown, (await make_key(auth)).token):
            with pytest.raises(AddressBlocked):
                await check(auth, request(token))
            await check(auth, request((await make_key(auth)).token, OTHER))


@ON_MEMORY
async def test_a_block_that_another_worker_began_names_no_key_that_was_verified_before(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), block_after_failures=1) as auth:
        created = await make_key(auth)
        await warm(auth, created.token)
        with pytest.raises(MalformedApiKey):
            await check(auth, request("malformed"))
        auth._parts.authenticator.limiter = cast("Limiter", AskedLimiter(auth._parts.authenticator.limiter))
        context = request(created.token)
        with pytest.raises(AddressBlocked):
            await check(auth, context)
        assert context.key is None


@ON_MEMORY
async def test_without_an_address_no_attempt_begins_a_block(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), block_after_failures=1) as auth:
        for _ in range(2):
            with pytest.raises(MalformedApiKey) as refused:
                await check(auth, AuthContext(Credentials("malformed"), None, None))
            assert refused.value.begins_block is False


@ON_MEMORY
async def test_a_placeholder_is_not_a_failed_attempt_but_a_block_applies_to_it(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), block_after_failures=1) as auth:
        for _ in range(2):
            with pytest.raises(MalformedApiKey) as refused:
                await check(auth, request("YOUR_API_KEY"))
            assert not refused.value.begins_block
        with pytest.raises(MalformedApiKey):
            await check(auth, request("malformed"))
        with pytest.raises(AddressBlocked):
            await check(auth, request("YOUR_API_KEY"))
        # Another worker began the block, so this one has to ask.
        auth._parts.authenticator.limiter = cast("Limiter", AskedLimiter(auth._parts.authenticator.limiter))
        with pytest.raises(AddressBlocked):
            await check(auth, request("YOUR_API_KEY"))


@ON_MEMORY
async def test_a_key_that_may_have_changed_is_not_named_while_its_row_cannot_be_read(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("test")

    async with make_auth(clock=Clock()) as auth:
        created = await make_key(auth)
        await warm(auth, created.token)
        await auth.keys.update(created.key.id, name="other")
        monkeypatch.setattr(store_of(auth), "find_for_token", fail)
        context = request(created.token)
        with pytest.raises(StoreUnavailable):
            await check(auth, context)
        assert context.key is None


@ON_MEMORY
async def test_no_row_is_read_for_a_blocked_address(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth(clock=Clock(), block_after_failures=1) as auth:
        created = await make_key(auth)
        with pytest.raises(MalformedApiKey):
            await check(auth, request("malformed"))
        # Another worker began the block, so this one has to ask.
        auth._parts.authenticator.limiter = cast("Limiter", AskedLimiter(auth._parts.authenticator.limiter))
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        with pytest.raises(AddressBlocked):
            await check(auth, request(created.token))
        assert reads.calls == 0


@ON_MEMORY
async def test_an_imported_token_that_matches_no_row_is_refused_after_one_question(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), imported_prefixes=["old_"], block_after_failures=3) as auth:
        for attempt in range(3):
            limiter = AskedLimiter(auth._parts.authenticator.limiter)
            auth._parts.authenticator.limiter = cast("Limiter", limiter)
            with pytest.raises(InvalidApiKey) as refused:
                await check(auth, request(f"old_{attempt}{'x' * 40}"))
            assert (refused.value.begins_block, limiter.asked) == (attempt == 2, 1)


@ON_MEMORY
async def test_another_secret_of_a_known_key_is_admitted_from_memory_after_one_read(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock(), max_staleness_s=3600) as auth:
        created = await make_key(auth)
        await warm(auth, created.token)
        rotated = await auth.keys.rotate(created.key.id)
        await warm(auth, created.token)  # the limiter knows the generation since the rotation
        counters = auth._parts.metrics.counters
        before = counters.admitted_by_row
        for _ in range(3):
            await check(auth, request(rotated.token))
        assert counters.admitted_by_row == before + 1


@ON_MEMORY
async def test_a_request_that_a_finding_refuses_is_counted_as_refused(make_auth: MakeAuth) -> None:
    async with make_auth(clock=Clock()) as auth:
        created = await auth.keys.create(owner_id="alice", name="k", allowed_ips=[ADDRESS])
        for _ in range(3):
            with pytest.raises(AddressNotAllowed):
                await check(auth, request(created.token, OTHER))
        (hour,) = [hour for hour in await auth.keys.usage(created.key.id) if hour.refused]
        assert (hour.refused, hour.admitted) == (3, 0)


class AskedLimiter:
    """A limiter that decides nothing without being asked, as one on Redis."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.known_blocks: dict[str, int] = {}
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._limiter, name)

    def try_decide(self, _question: LimitCheck) -> None:
        """Decide nothing."""

    def known_block_s(self, bucket: str) -> int | None:
        """Return the remaining duration of a block that this worker knows."""
        return self.known_blocks.get(bucket)

    async def check(self, question: LimitCheck) -> Decision:
        """Count the question, and ask the limiter."""
        self.asked += 1
        return await self._limiter.check(question)


async def _admitted(auth: KeyAuth, key_id: str) -> int:
    return sum(hour.admitted for hour in await auth.keys.usage(key_id))
