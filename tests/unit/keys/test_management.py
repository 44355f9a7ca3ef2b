"""Changes are checked once more under the row's lock, and announced again if they are repeated."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth, KeyNotFound
from fastapi_keyauth.domain.fields import KeyPatch
from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.errors import ChangePending, InvalidField, KeyNotActive
from fastapi_keyauth.keys.management import Check, KeyManagement
from tests.helpers.keys import make_key

MakeAuth = Callable[..., KeyAuth]
Change = Callable[[KeyAuth, str], Awaitable[Any]]


def management_of(auth: KeyAuth) -> KeyManagement:
    return auth.keys._management


def before_hashing(monkeypatch: pytest.MonkeyPatch, auth: KeyAuth, act: Callable[[], Awaitable[Any]]) -> None:
    """Run a function between the first check of a rotation and its transaction."""
    hasher = management_of(auth)._hasher
    hash_secret = hasher.hash

    async def act_and_hash(secret: str, owner_id: str) -> str:
        await act()
        return await hash_secret(secret, owner_id)

    monkeypatch.setattr(hasher, "hash", act_and_hash)


@pytest.mark.parametrize("state", ["disabled", "revoked"])
async def test_a_key_that_becomes_inactive_while_its_new_secret_is_hashed_is_not_rotated(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id

        async def act() -> None:
            await (auth.keys.revoke(key_id) if state == "revoked" else auth.keys.update(key_id, enabled=False))

        before_hashing(monkeypatch, auth, act)
        with pytest.raises(KeyNotActive):
            await auth.keys.rotate(key_id)
        assert len((await auth.keys.get(key_id)).secrets) == 1


async def test_the_caller_of_a_rotation_is_checked_again_under_the_lock(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        checked: list[str] = []

        def check(key: Any) -> None:
            checked.append(key.id)
            if len(checked) > 1:
                raise KeyNotFound

        with pytest.raises(KeyNotFound):
            await management_of(auth).rotate(created.key.id, timedelta(0), check=check)
        assert checked == [created.key.id] * 2
        assert [secret.hint for secret in (await auth.keys.get(created.key.id)).secrets] == [
            secret.hint for secret in created.key.secrets
        ]


async def _disable(auth: KeyAuth, key_id: str) -> Any:
    return await auth.keys.update(key_id, enabled=False)


async def _revoke(auth: KeyAuth, key_id: str) -> Any:
    return await auth.keys.revoke(key_id)


@pytest.mark.parametrize("change", [_disable, _revoke], ids=["patch", "delete"])
async def test_a_change_that_is_repeated_after_a_503_is_announced_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    async with make_auth() as auth:
        key = (await make_key(auth)).key
        announced: list[tuple[str, str]] = []

        async def publish(key_id: str, owner_id: str, pending: int | None) -> None:
            announced.append((key_id, owner_id))
            if len(announced) == 1:
                raise ChangePending(10)

        monkeypatch.setattr(management_of(auth)._outbox, "publish", publish)
        with pytest.raises(ChangePending):
            await change(auth, key.id)
        await change(auth, key.id)
        assert announced == [(key.id, key.owner_id)] * 2


@pytest.mark.parametrize(
    ("rotations", "overlap_s", "is_raised"), [(1, 9, True), (1, 10, False), (1, 3600, False), (2, 3600, True)]
)
async def test_a_rotation_that_is_not_announced_gives_its_token_in_any_case(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch, rotations: int, overlap_s: int, is_raised: bool
) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        for _ in range(rotations - 1):
            await auth.keys.rotate(key_id)

        async def publish(*_: Any) -> None:
            raise ChangePending(10)

        monkeypatch.setattr(management_of(auth)._outbox, "publish", publish)
        overlap = timedelta(seconds=overlap_s)
        if is_raised:
            with pytest.raises(ChangePending) as pending:
                await auth.keys.rotate(key_id, overlap)
            token = pending.value.token
        else:
            token = (await auth.keys.rotate(key_id, overlap)).token
        assert token is not None
        assert (await auth.keys.get(key_id)).secrets[0].hint.endswith(token[-4:])


async def _patch(auth: KeyAuth, key_id: str, check: Check) -> Any:
    return await management_of(auth).patch(key_id, KeyPatch(name="other"), check=check)


async def _patch_result(auth: KeyAuth, key_id: str, check: Check) -> Any:
    return await management_of(auth).patch(key_id, KeyPatch(name="other"), check_result=check)


async def _revoke_checked(auth: KeyAuth, key_id: str, check: Check) -> Any:
    return await management_of(auth).revoke(key_id, check=check)


@pytest.mark.parametrize("change", [_patch, _patch_result, _revoke_checked])
async def test_a_change_that_its_check_refuses_leaves_the_key_unchanged(
    make_auth: MakeAuth, change: Callable[[KeyAuth, str, Check], Awaitable[Any]]
) -> None:
    def refuse(_key: Key) -> None:
        raise KeyNotFound

    async with make_auth() as auth:
        key = (await make_key(auth)).key
        with pytest.raises(KeyNotFound):
            await change(auth, key.id, refuse)
        after = await auth.keys.get(key.id)
        assert (after.name, after.status) == (key.name, "active")


@pytest.mark.parametrize("method", ["rotate", "revoke"])
async def test_a_reason_that_is_too_long_stops_the_change(make_auth: MakeAuth, method: str) -> None:
    async with make_auth() as auth:
        key = (await make_key(auth)).key
        with pytest.raises(InvalidField) as refused:
            await getattr(auth.keys, method)(key.id, reason="x" * 1001)
        assert refused.value.field == "reason"
        after = await auth.keys.get(key.id)
        assert (after.status, after.secrets) == ("active", key.secrets)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, seconds=1)])
async def test_an_overlap_out_of_bounds_is_refused(make_auth: MakeAuth, overlap: timedelta) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        with pytest.raises(InvalidField) as refused:
            await auth.keys.rotate(key_id, overlap)
        assert refused.value.field == "overlap_s"
        await auth.keys.rotate(key_id, timedelta(days=7))
        await auth.keys.rotate(key_id, timedelta(0))
