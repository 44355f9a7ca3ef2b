"""Correct secrets of inactive keys get the reason and cost no unit or failed attempt, but cannot cause a flood."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fastapi_keyauth import CreatedKey, ExpiredApiKey, HasherUnavailable, InvalidApiKey, KeyAuth, RevokedApiKey
from fastapi_keyauth.auth.hashing import MAX_WAITING_INACTIVE_OF_OWNER, MAX_WAITING_OF_OWNER
from fastapi_keyauth.domain.tokens import format_token, new_secret
from tests.helpers.keys import Gate, authenticate, make_key

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


async def dead_tokens(auth: KeyAuth, count: int, owner_id: str = "mallory") -> list[str]:
    """Return secrets of one key that rotations replaced."""
    created = await auth.keys.create(owner_id=owner_id, name="k")
    made = [created] + [await auth.keys.rotate(created.key.id, overlap=timedelta(0)) for _ in range(count)]
    return [one.token for one in made[:-1]]


def hashes_of(auth: KeyAuth, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the owners of all hashes from now on, in the order in which the hashes run."""
    ran: list[str] = []
    real = auth._parts.hasher._verify_in_turn

    async def verify(phc: str, secret: str, owner_id: str) -> tuple[bool, float]:
        ran.append(owner_id)
        return await real(phc, secret, owner_id)

    monkeypatch.setattr(auth._parts.hasher, "_verify_in_turn", verify)
    return ran


class SlowHashes:
    """Holds every hash in its thread until it is released."""

    def __init__(self, auth: KeyAuth, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.second = asyncio.Event()
        self.go = asyncio.Event()
        hashing = auth._parts.hasher
        turns = hashing._turns
        real = turns.acquire

        async def acquire(owner: str, *, lane: str = "") -> None:
            await real(owner, lane=lane)
            self.ran.append(owner)
            if len(self.ran) == 2:
                self.second.set()
            await self.go.wait()

        monkeypatch.setattr(turns, "acquire", acquire)


async def test_inactive_secrets_do_not_evict_those_in_use(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth(cache_size=3, max_staleness_s=3600) as auth:
        live = [await make_key(auth) for _ in range(3)]
        for key in live * 3:  # a key that the limiter has not seen is read once more, when it has
            await authenticate(auth, key.token)
        for token in await dead_tokens(auth, 8):
            with pytest.raises(ExpiredApiKey):
                await authenticate(auth, token)
        reads = Gate(monkeypatch, auth._parts.store, "find_for_token")
        reads.opened.set()
        ran = hashes_of(auth, monkeypatch)
        for key in live:
            await authenticate(auth, key.token)
        assert (reads.calls, ran) == (0, [])


async def test_an_inactive_secret_is_hashed_once_and_then_cached(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        tokens = await dead_tokens(auth, 3)
        ran = hashes_of(auth, monkeypatch)
        for _ in range(3):
            for token in tokens:
                with pytest.raises(ExpiredApiKey):
                    await authenticate(auth, token)
        assert len(ran) == 3


async def test_a_key_that_dies_and_lives_again_is_not_hashed_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
        ran = hashes_of(auth, monkeypatch)
        for enabled in (False, True, False, True):
            await auth.keys.update(created.key.id, enabled=enabled)
            answer = (await asyncio.gather(authenticate(auth, created.token), return_exceptions=True))[0]
            assert isinstance(answer, Exception) is not enabled
        await auth.keys.revoke(created.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, created.token)
        assert ran == []


async def test_a_flood_of_inactive_secrets_is_bounded_and_delays_no_other_key(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fastapi_keyauth")
    async with make_auth(block_after_failures=1) as auth:
        tokens = await dead_tokens(auth, MAX_WAITING_INACTIVE_OF_OWNER + 10)
        others = await dead_tokens(auth, 1, "bob")
        live: CreatedKey = await make_key(auth)
        slow = SlowHashes(auth, monkeypatch)
        flood = [asyncio.create_task(authenticate(auth, token)) for token in tokens]
        done: set[asyncio.Task[Any]] = set()
        while len(done) < 9:  # one is hashed, so many wait, the rest is turned away
            done, waiting = await asyncio.wait(flood, timeout=0.05)
        assert all(isinstance(task.exception(), HasherUnavailable) for task in done)
        assert slow.ran == ["mallory"]
        too_late = [line for line in caplog.messages if line.startswith("too many wait for argon2")]
        assert len(too_late) == 1
        dead_of_other = asyncio.create_task(authenticate(auth, others[0]))
        new_key = asyncio.create_task(authenticate(auth, live.token))
        await slow.second.wait()
        assert slow.ran == ["mallory", "alice"]  # at once, beside the lane of the dead
        slow.go.set()
        assert (await new_key).id == live.key.id
        for task in (*waiting, dead_of_other):
            with pytest.raises(ExpiredApiKey):
                await task
        assert slow.ran.index("bob") <= 4  # its turn came after one of the crowd's
        made_up = format_token("ka", "live", live.key.id, new_secret())
        with pytest.raises(InvalidApiKey):  # nothing before was a failed attempt: this is the first
            await authenticate(auth, made_up)


async def test_hashing_for_inactive_keys_pauses(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth() as auth:
        rests: list[float] = []
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def call_later(delay: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            if callback == auth._parts.hasher._inactive_turns.release:
                rests.append(delay)
                delay = 0
            return real(delay, callback, *arguments, **options)

        monkeypatch.setattr(loop, "call_later", call_later)

        async def verify(_phc: str, _secret: str, _owner_id: str) -> tuple[bool, float]:
            return True, 2.0

        monkeypatch.setattr(auth._parts.hasher, "_verify_in_turn", verify)
        for _ in range(2):
            assert await auth._parts.hasher.verify_inactive("", "", "a")
        assert rests == [6.0, 6.0]


async def test_new_keys_wait_for_their_hash_up_to_a_bound(make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_auth() as auth:
        phc = await auth._parts.hasher.hash("right", "a")
        slow = SlowHashes(auth, monkeypatch)
        running = auth.settings.max_concurrent_hashes
        asked = [
            asyncio.create_task(auth._parts.hasher.verify(phc, "right", "a"))
            for _ in range(MAX_WAITING_OF_OWNER + running + 1)
        ]
        new = [asyncio.create_task(auth._parts.hasher.hash("new", "a")) for _ in range(MAX_WAITING_OF_OWNER + 1)]
        done, _ = await asyncio.wait(asked, timeout=20, return_when=asyncio.FIRST_EXCEPTION)
        assert [type(task.exception()) for task in done] == [HasherUnavailable]
        refused, _ = await asyncio.wait(new, timeout=20, return_when=asyncio.FIRST_EXCEPTION)
        assert [type(task.exception()) for task in refused] == [HasherUnavailable]
        slow.go.set()
        seen = await asyncio.gather(*(task for task in asked if task not in done))
        assert seen == [True] * (MAX_WAITING_OF_OWNER + running)
        assert len(await asyncio.gather(*(task for task in new if task not in refused))) == MAX_WAITING_OF_OWNER


async def test_a_crowd_of_new_secrets_refuses_no_other_owners_first_use(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_keyauth.auth.hashing.MAX_WAITING", 20)
    async with make_auth() as auth:
        phc = await auth._parts.hasher.hash("right", "a")
        slow = SlowHashes(auth, monkeypatch)
        crowd = [asyncio.create_task(auth._parts.hasher.hash("new", f"mallory {number % 3}")) for number in range(40)]
        await slow.second.wait()
        others = [
            asyncio.create_task(auth._parts.hasher.verify(phc, "right", f"owner {number}")) for number in range(20)
        ]
        slow.go.set()
        assert await asyncio.gather(*others) == [True] * 20
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert {type(error) for error in refused} == {HasherUnavailable}
        assert len(refused) == 40 - 20 - auth.settings.max_concurrent_hashes
