"""What the checks of a key promise beyond the contract's routes: outcomes that are kept, and requests from memory."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from fastapi_keyauth import AddressNotAllowed, KeyAuth, KeyPrincipal, MalformedApiKey, RateLimitExceeded
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.tokens import token_digest
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter import Decision, LimitCheck, Limiter
from tests.helpers.keys import make_key
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
                await check(auth, request(created.token))
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


class AskedLimiter:
    """A limiter that decides nothing without being asked, as one on Redis."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._limiter, name)

    def try_decide(self, _question: LimitCheck) -> None:
        """Decide nothing."""


async def _admitted(auth: KeyAuth, key_id: str) -> int:
    return sum(hour.admitted for hour in await auth.keys.usage(key_id))
