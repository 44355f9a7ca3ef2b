"""A change with a response is effective for every later request: the races behind "revocation is immediate"."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import pytest

from fastapi_keyauth import KeyAuth, LimiterUnavailable, RevokedApiKey
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.errors import ChangePending, DisabledApiKey, ExpiredApiKey, HasherUnavailable, StoreUnavailable
from fastapi_keyauth.keys import outbox
from fastapi_keyauth.limiter import FailoverLimiter, SingleNodeLimiter
from fastapi_keyauth.limiter.protocol import Unsettled
from tests.helpers.keys import CountedCalls, Gate, authenticate, make_key, store_of

MakeAuth = Callable[..., KeyAuth]


async def test_a_row_read_before_a_change_and_cached_after_it_is_not_trusted(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        gate = Gate(monkeypatch, store_of(auth), "find_for_token")
        slow = asyncio.create_task(authenticate(auth, created.token))
        await gate.reached.wait()
        await auth.keys.revoke(created.key.id)
        gate.opened.set()
        await slow  # it began before the revocation; whether it is admitted is a matter of taste
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, created.token)


async def test_a_request_does_not_join_a_reading_that_began_before_it(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        gate = Gate(monkeypatch, store_of(auth), "find_for_token")
        slow = asyncio.create_task(authenticate(auth, created.token))
        await gate.reached.wait()
        await auth.keys.revoke(created.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, created.token)
        gate.opened.set()
        await asyncio.gather(slow, return_exceptions=True)


async def test_a_warm_key_is_neither_hashed_nor_read_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await make_key(auth)
        for _ in range(3):  # a key that Redis has not seen is read once more, when it has
            await authenticate(auth, created.token)
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        hashes = Gate(monkeypatch, auth._parts.hasher, "verify")
        for _ in range(20):
            await authenticate(auth, created.token)
        assert (reads.calls, hashes.calls) == (0, 0)


async def test_the_row_of_a_changed_key_is_read_once_for_all_that_wait(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await make_key(auth)
        for _ in range(3):
            await authenticate(auth, created.token)
        await auth.keys.update(created.key.id, name="other")
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        verifier = auth._parts.request_handler.authenticator._verifier
        waiting = CountedCalls(monkeypatch, verifier, "read")
        tasks = [asyncio.create_task(authenticate(auth, created.token)) for _ in range(30)]
        await reads.reached.wait()
        await waiting.reach(30)
        tasks[0].cancel()
        reads.opened.set()
        seen = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(seen[0], asyncio.CancelledError)
        assert {answer.name for answer in seen[1:] if isinstance(answer, KeyPrincipal)} == {"other"}
        assert len(seen) == 30
        assert reads.calls == 1


async def test_a_reading_is_not_shared_across_a_change(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await make_key(auth)
        for _ in range(3):
            await authenticate(auth, created.token)
        await auth.keys.update(created.key.id, name="other")
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        slow = asyncio.create_task(authenticate(auth, created.token))
        await reads.reached.wait()
        await auth.keys.revoke(created.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, created.token)
        assert reads.calls == 2
        reads.opened.set()
        await asyncio.gather(slow, return_exceptions=True)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, created.token)


async def test_a_database_that_fails_fails_all_that_wait_each_with_an_error_of_its_own(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        created = await make_key(auth)
        for _ in range(3):
            await authenticate(auth, created.token)
        await auth.keys.update(created.key.id, name="other")

        async def fail(*_: object) -> None:
            raise StoreUnavailable

        monkeypatch.setattr(store_of(auth), "find_for_token", fail)
        seen = await asyncio.gather(*(authenticate(auth, created.token) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in seen] == [StoreUnavailable] * 5
        assert len({id(answer) for answer in seen}) == 5


async def test_argon2_runs_once_for_all_that_wait_and_once_per_process(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        hashes = Gate(monkeypatch, auth._parts.hasher, "verify")
        tasks = [asyncio.create_task(authenticate(auth, created.token)) for _ in range(30)]
        await hashes.reached.wait()
        tasks[0].cancel()
        hashes.opened.set()
        seen = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(seen[0], asyncio.CancelledError)
        assert all(isinstance(answer, KeyPrincipal) for answer in seen[1:])
        await auth.keys.update(created.key.id, name="other")
        assert (await authenticate(auth, created.token)).name == "other"
        assert hashes.calls == 1


async def test_wrong_secrets_never_reach_argon2_and_are_read_once(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret
    from fastapi_keyauth.errors import AddressBlocked, InvalidApiKey

    async with make_auth() as auth:
        created = await make_key(auth)
        hashes = Gate(monkeypatch, auth._parts.hasher, "verify")
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        reads.opened.set()
        for key_id in (created.key.id, new_key_id()):
            token = format_token("ka", "live", key_id, new_secret())
            for _ in range(5):
                with pytest.raises(InvalidApiKey):
                    await authenticate(auth, token)
        with pytest.raises(AddressBlocked):
            await authenticate(auth, format_token("ka", "live", new_key_id(), new_secret()))
        assert (reads.calls, hashes.calls) == (2, 0)


async def test_a_correct_secret_with_another_environment_is_invalid(make_auth: MakeAuth) -> None:
    from fastapi_keyauth.domain.tokens import format_token
    from fastapi_keyauth.errors import InvalidApiKey

    async with make_auth() as auth:
        created = await make_key(auth)
        secret = created.token.rsplit("_", 1)[1][:43]
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, format_token("ka", "test", created.key.id, secret))


several_workers = pytest.mark.parametrize("stack", ["postgres-valkey", "sqlite-redis6"], indirect=True)


@several_workers
@pytest.mark.parametrize("change", ["revoke", "disable", "narrow", "rotate"])
async def test_another_worker_knows_of_a_change_immediately(make_auth: MakeAuth, change: str) -> None:
    here, there = make_auth(), make_auth()
    async with here, there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        if change == "revoke":
            await here.keys.revoke(created.key.id)
        elif change == "disable":
            await here.keys.update(created.key.id, enabled=False)
        elif change == "narrow":
            await here.keys.update(created.key.id, scopes=["a"])
            assert (await authenticate(there, created.token)).scopes == {"a"}
            return
        else:
            await here.keys.rotate(created.key.id, timedelta(0))
            with pytest.raises(ExpiredApiKey):
                await authenticate(there, created.token)
            return
        with pytest.raises(Exception, match=created.key.id) as refusal:
            await authenticate(there, created.token)
        assert type(refusal.value).__name__ in ("RevokedApiKey", "DisabledApiKey")


@several_workers
async def test_a_change_whose_worker_died_is_announced_by_another(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = make_auth(), make_auth()
    async with other, dying:
        created = await make_key(dying)
        for _ in range(3):
            await authenticate(other, created.token)

        async def die(_key_id: str, _owner_id: str) -> None:
            raise LimiterUnavailable("dying")

        monkeypatch.setattr(dying._parts.limiter, "bump_generation", die)
        with pytest.raises(ChangePending) as pending:
            await dying.keys.revoke(created.key.id)
        assert pending.value.holds_within_s > 0
        assert (await dying.keys.get(created.key.id)).status == "revoked"
        await authenticate(other, created.token)  # the other worker has not been told
        await other._parts.outbox.drain()
        with pytest.raises(RevokedApiKey):
            await authenticate(other, created.token)
        assert await other._parts.pending_changes.find(10) == []


@pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)
async def test_a_start_that_is_cut_off_leaves_nothing_open(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = make_auth()
    looking = Gate(monkeypatch, auth._parts.limiter, "run_checks")
    closing = CountedCalls(monkeypatch, auth._parts.limiter, "close")
    start = asyncio.create_task(auth.__aenter__())
    await looking.reached.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    async with asyncio.timeout(10):
        await closing.reach(1)
    assert auth._parts.database._engine is None


@pytest.mark.parametrize("stack", ["sqlite-redis6"], indirect=True)
async def test_changes_that_are_announced_late_though_redis_responds_are_logged(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)

        async def stay_unsettled(_key_id: str, _owner_id: str) -> None:
            raise Unsettled("no Sentinel responds")

        monkeypatch.setattr(auth._parts.limiter, "bump_generation", stay_unsettled)
        caplog.set_level(logging.WARNING, "fastapi_keyauth")  # an application in this process may have set another
        caplog.clear()
        for enabled in (False, True):
            with pytest.raises(ChangePending):
                await auth.keys.update(created.key.id, enabled=enabled)
        assert caplog.messages == ["changes to keys get a 503 and are announced later: no Sentinel responds"]


@several_workers
async def test_all_waiting_changes_are_announced_in_one_poll(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script revokes thousands of keys during an outage of Redis; the last must not take minutes longer."""
    monkeypatch.setattr(outbox, "_BATCH", 2)
    dying, other = make_auth(), make_auth()
    async with other, dying:

        async def die(_key_id: str, _owner_id: str) -> None:
            raise LimiterUnavailable("dying")

        monkeypatch.setattr(dying._parts.limiter, "bump_generation", die)
        created = [await make_key(dying) for _ in range(5)]
        for key in created:
            await authenticate(other, key.token)
        for key in created:
            with pytest.raises(ChangePending):
                await dying.keys.revoke(key.key.id)
        await other._parts.outbox.drain()
        assert await other._parts.pending_changes.find(10) == []
        for key in created:
            with pytest.raises(RevokedApiKey):
                await authenticate(other, key.token)


@pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)
def test_a_keyauth_can_be_started_again_in_another_event_loop(make_auth: MakeAuth) -> None:
    auth = make_auth()

    async def run(token: str | None) -> str:
        async with auth:
            if token is None:
                token = (await make_key(auth)).token
            await asyncio.gather(*(authenticate(auth, token) for _ in range(20)))
            await asyncio.gather(*(auth._parts.limiter.bump_generation("x" * 12) for _ in range(20)))
            await asyncio.gather(*(auth._parts.usage.flush() for _ in range(5)))
            return token

    asyncio.run(run(asyncio.run(run(None))))


@several_workers
async def test_the_second_try_of_a_change_that_could_not_be_announced_announces_it(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make_auth(), make_auth()
    async with here, there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        with monkeypatch.context() as patch:

            async def fail(_key_id: str, _owner_id: str) -> None:
                raise LimiterUnavailable("away")

            patch.setattr(here._parts.limiter, "bump_generation", fail)
            with pytest.raises(ChangePending):
                await here.keys.update(created.key.id, enabled=False)
        await here.keys.update(created.key.id, enabled=False)
        with pytest.raises(DisabledApiKey):
            await authenticate(there, created.token)


async def test_an_inactive_key_that_is_still_used_costs_no_reads(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = make_auth(max_staleness_s=3600)
    async with auth:
        created = await make_key(auth)
        await auth.keys.revoke(created.key.id)
        if isinstance(auth._parts.limiter, FailoverLimiter):
            assert isinstance(auth._parts.limiter.primary, SingleNodeLimiter)
            await auth._parts.limiter.primary._control_client.flushdb()
        reads = Gate(monkeypatch, store_of(auth), "find_for_token")
        reads.opened.set()
        for _ in range(20):
            with pytest.raises(RevokedApiKey):
                await authenticate(auth, created.token)
        assert reads.calls <= 2


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_limit_of_its_own_is_kept_when_the_default_changes(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        await auth.keys.update(created.key.id, hourly_limit=1000)
        assert [event.event for event in (await auth.keys.events(created.key.id)).items] == ["updated", "created"]
    async with make_auth(default_hourly_limit=10) as auth:
        assert (await auth.keys.get(created.key.id)).hourly_limit == 1000
        await auth.keys.update(created.key.id, hourly_limit=None)
        await auth.keys.update(created.key.id, hourly_limit=None)
        assert (await auth.keys.get(created.key.id)).hourly_limit == 10
        assert len((await auth.keys.events(created.key.id)).items) == 3


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_lack_of_memory_for_argon2_says_nothing_about_the_secret(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argon2.exceptions import VerificationError

    def fail(_phc: str, _secret: str) -> bool:
        raise VerificationError("Memory allocation error")

    async with make_auth(block_after_failures=1) as auth:
        created = await make_key(auth)
        with monkeypatch.context() as patch:
            patch.setattr(auth._parts.hasher, "_hasher", type("Hasher", (), {"verify": staticmethod(fail)}))
            for _ in range(3):
                with pytest.raises(HasherUnavailable):
                    await authenticate(auth, created.token)
        assert (await authenticate(auth, created.token)).id == created.key.id
